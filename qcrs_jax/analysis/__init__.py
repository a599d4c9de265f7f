"""Analysis of measured curves, of searches and of numbers of samples.

curves.py       R(sigma) with its confidence band
collapse.py     the sigma at which accuracy under noise is lost
attack.py       the nearest image that is found to be answered otherwise
ascent.py       the ascent of an attack
simulation.py   searches on measured curves, without the network
outlook.py      the radius that more samples of an image can be expected to certify
"""

"""Analysis of measured curves, of searches and of numbers of samples.

curves.py       R(sigma) with its confidence band
collapse.py     the sigma at which accuracy under noise is lost
simulation.py   searches on measured curves, without the network
outlook.py      the radius that more samples of an image can be expected to certify
"""

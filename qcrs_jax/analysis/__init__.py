"""What measured curves tell of searches and of samples.

curves.py       R(sigma) with its confidence band
simulation.py   searches on measured curves, without the network
outlook.py      what more samples of an image can be expected to certify
"""

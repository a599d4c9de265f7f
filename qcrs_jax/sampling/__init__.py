"""Noise in, class counts out.

noise.py     standard normal noise, a function of (key, number of the sample)
streams.py   the random streams of an image, one for each stage
counts.py    the one hot loop: class counts of noisy copies
devices.py   many devices of many hosts, images in step
"""

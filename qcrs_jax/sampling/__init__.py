"""Class counts of noisy copies.

noise.py       random words, a function of (key, number of the sample), and normal numbers from them
smoothing.py   kinds of noise, and the radii that they certify
thresholds.py  the places where a rounded normal number changes, in whole numbers
streams.py     the random streams of an image, one for each stage
classifiers.py functions of images, or of images and their noise
counts.py      the one hot loop: class counts of noisy copies
devices.py     many devices of many hosts, images in step
"""

"""Data sets: images and labels from files, arrays and TensorFlow Datasets.

    sources.py   the sources by name
    load.py      `load_dataset`
    dataset.py   Dataset
    limits.py    the largest size of a data set

Each of the other files reads one kind of source.
"""

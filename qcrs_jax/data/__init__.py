"""Data sets: images and labels from files, arrays and TensorFlow Datasets.

    load.py      the sources by name, and `load_dataset`
    dataset.py   Dataset
    limits.py    how much a data set may take

The other files read one kind of source each.
"""

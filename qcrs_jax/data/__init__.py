"""Data sets: images and labels from files, arrays and TensorFlow Datasets.

    sources.py   the sources by name
    load.py      `load_dataset`
    dataset.py   Dataset
    limits.py    how much a data set may take

The other files read one kind of source each.
"""

"""Programs of `torch.export` (`.pt2`) as JAX functions, without PyTorch: the archive, its graph, and an interpreter.

archive.py         the records of the file; weights as arrays
schema.py          the JSON of the graph as data, checked
registry.py        operations by their names in ATen
elementwise.py, shapes.py, creation.py, indexing.py, convolution.py, pooling.py, normalisation.py, attention.py,
reductions.py, resampling.py, symbols.py
                   the operations, with the argument names and defaults of ATen's schemas
channels_last.py   images that keep channels last between the operations that accept them
operations.py      all of these
aliases.py         operations that change a tensor in place
preparation.py     batch normalisation folded into convolutions, and kernels in the order of XLA
refusals.py        the parts of a graph that are refused
interpreter.py     runs a graph
classifier.py      a file as a classifier
"""

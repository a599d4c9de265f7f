"""PyTorch checkpoints to Flax classifiers, without PyTorch: reading the file, naming its parts, filling the network.

files/             readers of files, and a writer; they know nothing of networks
choose.py          which tensors of a file belong to the network
names.py           names in PyTorch, from the tables of the families (qcrs_jax/models)
recognise.py       which network it is
layouts.py         which programs write such files
normalization.py   how images are normalised
fill.py            weights into the network, and out of it
pt2/               programs of torch.export (.pt2), run with JAX
load.py            opening anything: load_classifier
export.py          a classifier to a PyTorch file
check.py           whether a classifier fits a data set
conversion.py      a PyTorch file to a directory, and the lines that describe it
zoo.py             the classifiers that come with the package
"""

import sys

if __name__ == "convert" and sys.argv[:1] != ["-m"]:  # `python -m convert` runs the command alone
    raise ImportError("the folder convert is the package qcrs_jax.convert: import that")

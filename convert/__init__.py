"""PyTorch checkpoints to Flax classifiers, without PyTorch: reading the file, naming its parts, filling the network."""

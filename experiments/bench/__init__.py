"""How fast the sampler is, and whether a device computes what it should."""

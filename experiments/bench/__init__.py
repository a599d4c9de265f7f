"""The speed of the sampler, and the check that a device computes correctly."""

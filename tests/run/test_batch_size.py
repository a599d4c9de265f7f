"""The choice of the batch size."""

from qcrs_jax.experiments.run import batch_size


def test_of_batch_sizes_as_fast_as_each_other_the_smallest_is_taken():
    assert batch_size.choose({8: 50.0, 16: 98.0, 32: 100.0, 64: 99.0}) == 16
    assert batch_size.choose({}) == 1

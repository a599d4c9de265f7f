"""Images are read while others are certified."""

from qcrs_jax.experiments.run import pipeline


def test_the_next_image_is_read_while_one_is_certified():
    import threading

    reading = [threading.Event() for _ in range(3)]

    class Images:
        def __getitem__(self, index):
            reading[index].set()
            return index

    for index, read in pipeline.read_ahead(Images().__getitem__, range(3)):
        assert read() == index
        # The body of the loop, where an image is certified: the reader is at the next one already.
        assert index == 2 or reading[index + 1].wait(10)

"""`qcrs-jax verify`: the seed of a file. Checks whether its request commits to it, and for which images."""

from collections.abc import Iterable, Iterator

from qcrs_jax.results.seeds import committed, is_chosen, is_committed, text


def check_seed(sidecar: dict, indices: Iterable[int], troubles: list) -> Iterator[str]:
    """Yields the findings about the seed of a file with lines of `indices`. Appends errors to `troubles`."""
    request = sidecar["request"]
    if is_chosen(request):
        yield f"{text(request['seed'])} was chosen by the user: nothing shows that no other was tried before"
    if is_committed(request):
        images = request["seed"]["images"]
        if request["seed"] != committed(request, images):
            troubles.append("seed: it is not the hash of the request in the sidecar")
            return
        troubles += _image_troubles(sidecar, set(indices), images)
        hashed = f"the hash of the request, the weights, the data and the {images} images"
        yield f"committed seed {request['seed']['sha256']}: {hashed}"
    for other in sidecar["provenance"].get("other_seeds", ()):
        yield f"it was started beside {other['file']}, which has the same request with {text(other['seed'])}"


def _image_troubles(sidecar, here, images):
    """The errors in the images of a file, to which its committed seed belongs."""
    request = sidecar["request"]
    skip, shard = request["skip"], request.get("shard", {"part": 1, "of": 1})
    due = range(0, images * skip, skip)[shard["part"] - 1 :: shard["of"]]
    if shard.get("images", images) != images:
        yield f"seed: it is for {images} images, and the shard is of a run over {shard['images']}"
    if strays := sorted(index for index in here if index not in due):
        yield f"image {strays[0]}: is none of the {images} images that the seed is for"
    known = sum(index in due for index in here.union(sidecar.get("left_out", ())))
    if "sha256" in sidecar and (missing := len(due) - known):
        yield f"{missing} of the {len(due)} images that the seed is for are missing"

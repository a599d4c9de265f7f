"""`qcrs-jax verify`: the checks of a sidecar that need no other input, and a description of its run."""

from qcrs_jax.errors import UserError, quoted
from qcrs_jax.results.records import (
    WHEN_FINISHED,
    checksum,
    guarantee_texts,
    read_sidecar,
    sidecar_checksum,
    whole_sidecar,
)
from qcrs_jax.results.seeds import text

HASHES = {"sha256", "pixels_sha256", "sidecar_sha256"}
FIRST_NOISE = (
    "threefry fold_in(seed, image, stage, draw, sample), jax.random.normal float32, jax_threefry_partitionable=True"
)
"""The noise of the earliest version. A file of that version is recognised by it alone."""

LATER_FLAGS = {"class_order", "field", "prefix", "leave_out", "image_size", "max_pool"}
"""Flags of certify that are newer than the hashes of pixels and sidecar."""

EVERY_RUN = ("kind", "sigma", "n", "seed", "skip", "noise", "classifier", "dataset")
_CERTIFIED = ("search", "estimate", "n0", "alpha")
OF_KIND = {
    "certificates": _CERTIFIED,
    "pilot": _CERTIFIED,
    "predictions": ("alpha",),
    "curves": ("sigmas",),
    "attacks": ("alpha", "attack"),
}
"""The fields that every version records of a run, and of a run of this kind."""
NOT_PROVED = (
    "not proved, as no sidecar can prove it: that alpha, the other settings, --skip and --max were chosen before the "
    "results were seen; the date, the devices, the versions and the times that are recorded"
)


def summary(sidecar: dict) -> str:
    """A description of a file: method, sigma, samples, alpha, images, seed, network, and the program that wrote it."""
    try:
        return _summary(sidecar["request"], sidecar["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its sidecar does not describe the run: {type(error).__name__}, {quoted(error)}"


def _summary(request, provenance):
    search, estimate = request.get("search", {}), request.get("estimate", {})
    of = request.get("attack", {})
    names = {"cohen": "Cohen's certificates", "ddrs": "DDRS", "qcrs": f"QCRS {search.get('name')}"}
    names["cascade"] = f"a cascade of {len(search.get('sigmas', ()))} stages"
    name = {"predictions": "predictions", "curves": "curves R(sigma)"}.get(request.get("kind"))
    if of:
        name = f"attacks by {of.get('method')} on {of.get('source')}"
    name = name or names.get(search.get("method"), "") + ", pilot" * (request.get("kind") == "pilot")
    said = [name, f"sigma {request['sigma']:g}"] if "sigma" in request else [name]
    if "sigma_lower" in search:
        said[-1] += f" in a bracket of {search['sigma_lower']:g} to {search['sigma_upper']:g}"
    said += [
        f"{label} = {request[key]:g}" for key, label in (("n0", "N0"), ("n", "N"), ("alpha", "alpha")) if key in request
    ]
    if estimate and (estimate.get("name"), estimate.get("bound", "")) != ("fixed", "clopper-pearson"):
        told = {name: value for name, value in estimate.items() if name not in ("name", "votes") and value is not None}
        said += [", ".join([estimate.get("name", ""), *(f"{name} {value}" for name, value in told.items())])] * bool(
            estimate
        )
    said += ["stop_when_wrong"] * bool(request.get("stop_when_wrong"))
    for key, inside in (("budget", ("mean",)), ("shard", ("part", "of"))):
        if request.get(key):
            said.append(key + "".join(f" {n} {request[key][n]}" for n in inside if request[key].get(n) is not None))
    if request.get("simultaneous"):
        said[-1] += f" ({request['simultaneous']['alpha']:g} for all {request['simultaneous']['images']} images)"
    data, network = request.get("dataset", {}), request.get("classifier", {})
    if data:
        said.append(f"images 0, {request.get('skip', 1)}, ... of {data['name']} ({data['split']})")
    if "seed" in request:
        said.append(text(request["seed"]))
    if network:
        said.append(f"network {network.get('arch')}, weights {network['weights_sha256'][:12]}")
    if denoiser := network.get("denoiser"):
        said.append(f"denoiser {denoiser.get('arch')}, weights {denoiser['weights_sha256'][:12]}")
    versions = provenance.get("versions", {})
    by = ", ".join(f"{name} {versions[name]}" for name in ("qcrs_jax", "jax") if name in versions)
    device = provenance.get("devices", "an unnamed device")
    return f"holds {', '.join(said)}; written by {by or 'an unnamed program'} on {device}"


def earlier_version(sidecar) -> str | None:
    """The reason why no line of a file of the earliest version can be drawn again; None for any other version.

    A file counts as one only if it has the records of that version and no others.
    """
    request = sidecar["request"]
    if "stored_balls" in request or _later_than_the_first(sidecar):
        return None
    return (
        "it is of an earlier version, which did not record how the run was started. The noise of that version "
        f"({request['noise']}) can no longer be drawn"
    )


def _later_than_the_first(sidecar):
    """The names of records that the earliest version did not write; for a noise, whether it is not that version's."""
    said = [name for name in ("settings", "images") if name in sidecar["provenance"]]
    said += [name for name in (*WHEN_FINISHED, "account") if name in {*sidecar, *sidecar["said"]}]
    said += ["dtype"] * ("dtype" in sidecar["request"])
    return said + ["noise"] * (sidecar["request"].get("noise") != FIRST_NOISE)


def records_all_hashes(sidecar) -> bool:
    """Whether the sidecar is of a version that records hashes of pixels and sidecar, beside that of the file."""
    arguments = sidecar["provenance"].get("arguments")
    return arguments is None or bool(LATER_FLAGS & arguments.keys())


def check_request(path, sidecar) -> None:
    """Raises UserError for a sidecar without the records that every version writes."""
    request = sidecar["request"]
    if missing := [name for name in (*EVERY_RUN, *OF_KIND.get(request.get("kind"), ())) if name not in request]:
        raise UserError(f"{path}.json: not the sidecar of a run: its request does not have {', '.join(missing)}")


def missing_records(path, sidecar):
    """Yields a sentence on each record that a sidecar of its version lacks. It is unfinished, or was tampered with."""
    name, hashes = f"{path.name}.json", HASHES & sidecar.keys()
    if "settings" not in sidecar["provenance"]:
        if later := _later_than_the_first(sidecar):
            yield (
                f"{name}: how the run was started (provenance.settings) was taken out. Every version that records "
                f"{', '.join(later)} in this way also records that"
            )
        return
    if not hashes:
        yield (
            f"{name} has no hashes: the run is not finished, or they were taken out. The same command finishes the "
            "run, and writes them"
        )
    elif hashes != HASHES and (hashes != {"sha256"} or records_all_hashes(sidecar)):
        yield f"{name}: {', '.join(sorted(HASHES - hashes))} was taken out"
    elif "left_out" not in sidecar:
        yield f"{name}: left_out was taken out"


def check_whole(path, troubles):
    """Compares the file with its hash, and the guarantee in the sidecar with the one of its request."""
    sidecar, name = read_sidecar(path), f"{path.name}.json"
    said, due = sidecar["said"], guarantee_texts(sidecar["request"])
    earlier = earlier_version(sidecar)
    if earlier:  # it recorded fewer sentences
        due = {name: text for name, text in due.items() if name in said}
    if said != due:
        troubles.append(f"{name}: its sentences on the guarantee are not those of its request")
    troubles += missing_records(path, sidecar)
    if "sidecar_sha256" in sidecar:
        content = whole_sidecar(path)
        if content["sidecar_sha256"] != sidecar_checksum(content):
            troubles.append(f"{name} was changed after the run was finished: its hash differs")
    if "sha256" not in sidecar and earlier:
        return "no hashes are recorded, as in all files of that version: whether it was changed cannot be checked"
    if "sha256" not in sidecar:
        return "no hash of the file is recorded, so it cannot be compared"
    if sidecar["sha256"] != checksum(path):
        troubles.append("the file was changed after the run was finished: its hash differs")
    if "sidecar_sha256" not in sidecar:
        return (
            "the file, compared with its hash; no hash of pixels and sidecar is recorded, as in files of an earlier "
            "version"
        )
    return "file and sidecar, compared with their hashes"


def why_not_verified(sidecar) -> list[str]:
    """The reason why a file is not called verified, even if all its lines are the same when drawn again."""
    if not HASHES <= sidecar.keys():
        return ["the hashes of its pixels and of its sidecar are not recorded, as in files of an earlier version"]
    return []

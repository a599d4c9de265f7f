"""`qcrs-jax verify`: a sidecar by itself. Describes its run, and checks whether file and sidecar are whole."""

from qcrs_jax.errors import UserError, quoted
from qcrs_jax.results.records import WHEN_FINISHED, checksum, read_sidecar, said_of, sidecar_checksum, whole_sidecar
from qcrs_jax.results.seeds import text

SUMS = {"sha256", "pixels_sha256", "sidecar_sha256"}
FIRST_NOISE = (
    "threefry fold_in(seed, image, stage, draw, sample), jax.random.normal float32, jax_threefry_partitionable=True"
)
"""The noise of the earliest version, by which alone a file is known to be of it."""


LEARNT_SINCE = {"class_order", "field", "prefix", "leave_out", "image_size", "max_pool"}
"""Flags that certify has learnt since it records sums of pixels and sidecar."""


EVERY_RUN = ("kind", "sigma", "n", "seed", "skip", "noise", "classifier", "dataset")
_CERTIFIED = ("search", "estimate", "n0", "alpha")
OF_KIND = {"certificates": _CERTIFIED, "pilot": _CERTIFIED, "predictions": ("alpha",), "curves": ("sigmas",)}
"""The fields that every version records of a run, and of a run of this kind."""
NOT_PROVED = (
    "not proved, as no sidecar can prove it: that alpha, the other settings, --skip and --max were chosen before the "
    "results were seen; the date, the devices, the versions and the times that it records"
)


def summary(sidecar: dict) -> str:
    """A description of a file: method, sigma, samples, alpha, images, seed, network, and the program that wrote it."""
    try:
        return _summary(sidecar["request"], sidecar["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its sidecar does not say what it is of: {type(error).__name__}, {quoted(error)}"


def _summary(request, provenance):
    search, estimate = request.get("search", {}), request.get("estimate", {})
    names = {"cohen": "Cohen's certificates", "ddrs": "DDRS", "qcrs": f"QCRS {search.get('name')}"}
    name = {"predictions": "predictions", "curves": "curves R(sigma)"}.get(request.get("kind"))
    name = name or names.get(search.get("method"), "") + ", pilot" * (request.get("kind") == "pilot")
    said = [name, f"sigma {request['sigma']:g}"] if "sigma" in request else [name]
    if "sigma_lower" in search:
        said[-1] += f" in a bracket of {search['sigma_lower']:g} to {search['sigma_upper']:g}"
    said += [
        f"{label} = {request[key]:g}" for key, label in (("n0", "N0"), ("n", "N"), ("alpha", "alpha")) if key in request
    ]
    if (estimate.get("name"), estimate.get("bound", "")) != ("fixed", "clopper-pearson"):
        told = {name: value for name, value in estimate.items() if name not in ("name", "votes") and value is not None}
        said += [", ".join([estimate["name"], *(f"{name} {value}" for name, value in told.items())])] * bool(estimate)
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
    versions = provenance.get("versions", {})
    by = ", ".join(f"{name} {versions[name]}" for name in ("qcrs_jax", "jax") if name in versions)
    device = provenance.get("devices", "an unnamed device")
    return f"holds {', '.join(said)}; written by {by or 'an unnamed program'} on {device}"


def earlier_version(sidecar) -> str | None:
    """The reason why nothing of a file of the earliest version can be drawn again; None for any other version.

    Only a file that records what that version recorded, and no more, counts as one.
    """
    request = sidecar["request"]
    if "stored_balls" in request or _later_than_the_first(sidecar):
        return None
    return (
        "it is of an earlier version, which did not record how the run was started, and whose noise "
        f"({request['noise']}) is not drawn any more"
    )


def _later_than_the_first(sidecar):
    """The names of records that the earliest version did not write; for a noise, whether it is not that version's."""
    said = [name for name in ("settings", "images") if name in sidecar["provenance"]]
    said += [name for name in (*WHEN_FINISHED, "account") if name in {*sidecar, *sidecar["said"]}]
    said += ["dtype"] * ("dtype" in sidecar["request"])
    return said + ["noise"] * (sidecar["request"].get("noise") != FIRST_NOISE)


def sums_of_two_more_are_due(sidecar) -> bool:
    """Whether the sidecar is of a version that records sums of pixels and sidecar beside that of the file."""
    arguments = sidecar["provenance"].get("arguments")
    return arguments is None or bool(LEARNT_SINCE & arguments.keys())


def check_request(path, sidecar) -> None:
    """Raises UserError for a sidecar without the records that every version writes."""
    request = sidecar["request"]
    if missing := [name for name in (*EVERY_RUN, *OF_KIND.get(request.get("kind"), ())) if name not in request]:
        raise UserError(f"{path}.json: not the sidecar of a run: its request does not have {', '.join(missing)}")


def taken_out(path, sidecar):
    """Yields the records that a sidecar of its version lacks. Such a file is unfinished, or was tampered with."""
    name, sums = f"{path.name}.json", SUMS & sidecar.keys()
    if "settings" not in sidecar["provenance"]:
        if later := _later_than_the_first(sidecar):
            yield (
                f"{name}: how the run was started (provenance.settings) was taken out of it: every version records "
                f"that which records {', '.join(later)} as here"
            )
        return
    if not sums:
        yield (
            f"{name} has no sums: the run is not finished, or they were taken out of it. The command of the run "
            "finishes it, and writes them"
        )
    elif sums != SUMS and (sums != {"sha256"} or sums_of_two_more_are_due(sidecar)):
        yield f"{name}: {', '.join(sorted(SUMS - sums))} was taken out of it"
    elif "left_out" not in sidecar:
        yield f"{name}: left_out was taken out of it"


def check_whole(path, troubles):
    """Compares the file with its hash, and the guarantee in the sidecar with its record of the run."""
    sidecar, name = read_sidecar(path), f"{path.name}.json"
    said, due = sidecar["said"], said_of(sidecar["request"])
    earlier = earlier_version(sidecar)
    if earlier:  # which said less
        due = {name: text for name, text in due.items() if name in said}
    if said != due:
        troubles.append(f"{name}: what it says of the guarantee is not that of its request")
    troubles += taken_out(path, sidecar)
    if "sidecar_sha256" in sidecar:
        content = whole_sidecar(path)
        if content["sidecar_sha256"] != sidecar_checksum(content):
            troubles.append(f"{name} is not the one that was finished: its sum is another")
    if "sha256" not in sidecar and earlier:
        return "no sums are recorded, as files of an earlier version have none: whether it is whole cannot be told"
    if "sha256" not in sidecar:
        return "the file has no sum, with which it could be compared"
    if sidecar["sha256"] != checksum(path):
        troubles.append("the file is not the one that was finished: its sum is another")
    if "sidecar_sha256" not in sidecar:
        return (
            "the file, compared with its sum; none is recorded of pixels and sidecar, as of files of an earlier version"
        )
    return "file and sidecar, compared with their sums"


def why_not_verified(sidecar) -> list[str]:
    """The reason why a file is not called verified, even if all its lines are the same when they are drawn again."""
    if not SUMS <= sidecar.keys():
        return ["the sums of its pixels and of its sidecar are not there, as in files of an earlier version"]
    return []

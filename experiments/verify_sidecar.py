"""`qcrs-jax verify`: a sidecar by itself. Of what run it is, and whether file and sidecar are whole."""

SUMS = {"sha256", "pixels_sha256", "sidecar_sha256"}


def summary(sidecar: dict) -> str:
    """What a file is of: method, sigma, samples, alpha, images, seed, network, and the program that wrote it."""
    try:
        return _summary(sidecar["request"], sidecar["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its sidecar does not say what it is of: {error!r}"


def _summary(request, provenance):
    name = {"cohen": "Cohen's certificates", "ddrs": "DDRS", "predict": "predictions", "curve": "curves R(sigma)"}.get(
        request.get("method"), ""
    )
    settings = request.get("qcrs") or request.get("ddrs") or {}
    if request.get("qcrs"):
        name = f"QCRS {settings['search']}"
    if "pilot" in request:
        name += ", pilot"
    said = [name, f"sigma {request['sigma']:g}"] if "sigma" in request else [name]
    if "sigma_lower" in settings:
        said[-1] += f" in a bracket of {settings['sigma_lower']:g} to {settings['sigma_upper']:g}"
    said += [
        f"{label} = {request[key]:g}" for key, label in (("n0", "N0"), ("n", "N"), ("alpha", "alpha")) if key in request
    ]
    for key in ("tolerance", "certificate", "bound", "stop_when_wrong"):
        if request.get(key):
            said.append(key if request[key] is True else f"{key} {request[key]}")
    for key, inside in (("sequential", ("decide", "precision")), ("budget", ("mean",)), ("shard", ("part", "of"))):
        if request.get(key):
            said.append(key + "".join(f" {n} {request[key][n]}" for n in inside if request[key].get(n) is not None))
    if request.get("simultaneous"):
        said[-1] += f" ({request['simultaneous']['alpha']:g} for all {request['simultaneous']['images']} images)"
    data, network = request.get("dataset", {}), request.get("classifier", {})
    if data:
        said.append(f"images 0, {request.get('skip', 1)}, ... of {data['name']} ({data['split']})")
    if "seed" in request:
        said.append(f"seed {request['seed']}")
    if network:
        said.append(f"network {network.get('arch')}, weights {network['weights_sha256'][:12]}")
    versions = provenance.get("versions", {})
    by = ", ".join(f"{name} {versions[name]}" for name in ("qcrs_jax", "jax") if name in versions)
    device = provenance.get("devices", "an unnamed device")
    return f"holds {', '.join(said)}; written by {by or 'an unnamed program'} on {device}"


def earlier_version(sidecar) -> str | None:
    """Why nothing of a file of an earlier version can be drawn again; None for a file of this one."""
    from qcrs_jax.noise import recorded

    request = sidecar["request"]
    if "arguments" in sidecar["provenance"] or "memory" in request:
        return None
    said = "it is of an earlier version, which did not record how the run was started"
    if request.get("noise") not in map(recorded, ("threefry", "rbg")):
        said += f", and whose noise ({request.get('noise')}) is not drawn any more"
    return said


def check_whole(path, troubles):
    """Compares the file with its sum, and what the sidecar says of the guarantee with what it says of the run."""
    from qcrs_jax.records import checksum, read_sidecar, said_of, sidecar_checksum, sidecar_path

    sidecar = read_sidecar(path)
    said, due = sidecar["said"], said_of(sidecar["request"])
    if "arguments" not in sidecar["provenance"]:  # as of older versions, which said less
        due = {name: text for name, text in due.items() if name in said}
    if said != due:
        troubles.append(f"{sidecar_path(path).name}: what it says of the guarantee is not that of its request")
    if SUMS & sidecar.keys() not in (set(), {"sha256"}, SUMS):  # an older version knew but one
        troubles.append(f"{sidecar_path(path).name}: {', '.join(sorted(SUMS - sidecar.keys()))} was taken out of it")
    if "sidecar_sha256" in sidecar:
        content = json.loads(sidecar_path(path).read_text())
        if content["sidecar_sha256"] != sidecar_checksum(content):
            troubles.append(f"{sidecar_path(path).name} is not the one that was finished: its sum is another")
    if "sha256" not in sidecar and "arguments" not in sidecar["provenance"]:
        return "no sums are recorded, as files of an earlier version have none: whether it is whole cannot be told"
    if "sha256" not in sidecar:
        return "the run is not finished: the file has no sum yet"
    if sidecar["sha256"] != checksum(path):
        troubles.append("the file is not the one that was finished: its sum is another")
    if "sidecar_sha256" not in sidecar:
        return (
            "the file, compared with its sum; none is recorded of pixels and sidecar, as of files of an earlier version"
        )
    return "file and sidecar, compared with their sums"

"""The parts of the report on certainty, on the origin of the results, and on their verification."""

import html
import json
import shlex

from qcrs_jax.printable import printable, printable_lines
from qcrs_jax.results.account import account
from qcrs_jax.results.records import checksum, read_sidecar

from .markup import e, p
from .words import data_name, notes_on_runs


def state(part):
    """A sentence on whether the files of a run were verified, and how far."""
    name = f"<b>{e(part.name)}</b>: "
    if part.verified is None:
        hashes = _hashes(part)
        mark = "bad" if any(kind == "bad" for kind, _ in hashes) else "open"
        remark = " ".join(e(text) for kind, text in hashes if kind != "good") or "The file agrees with its hash."
        return f"<span class={mark}>not verified by this report</span> {name}{remark}"
    if part.verified.troubles:
        return f"<span class=bad>not what was computed</span> {name}{e(part.verified.troubles[0])}"
    mark, word = ("good", "verified") if part.verified.whole else ("open", "not verified as a whole")
    return f"<span class={mark}>{word}</span> {name}{e(part.verified.verdict)}"


def _hashes(part):
    """(kind, sentence) for each file: whether it was changed since its run was finished, by the hash in its sidecar."""
    if not part.run.sidecar:
        return [("open", "It has no sidecar, so it is not known how it was made.")]
    found = []
    for file in part.files:
        recorded = read_sidecar(file).get("sha256")
        if recorded is None:
            found.append(("open", f"The sidecar of {file.name} has no hash to compare it with."))
        elif recorded != checksum(file):
            found.append(("bad", f"{file.name} was changed after its run was finished: its hash differs."))
        else:
            found.append(
                ("good", f"{file.name} was not changed since its run was finished: its hash is the recorded one.")
            )
    return found


def sure(groups):
    members, parts = [part for group in groups for part in group.parts], []
    runs = [part.run for part in members]
    for name, run in ((part.name, part.run) for part in members):
        if "alpha" in run.request:
            text = account(run.request, len(run.records))
        else:
            text = (
                "The file does not record the probability with which a certificate may fail. Look in the program that "
                "made it."
            )
        parts.append(f"<h3>{e(name)}</h3>{p(text)}")
    accounts = {account(run.request, len(run.records)) for run in runs if "alpha" in run.request}
    notes = [
        note for group in groups for note in notes_on_runs(group.runs) if not any(text in note for text in accounts)
    ]
    return "".join(parts) + "<h3>Notes</h3>" + "".join(map(p, dict.fromkeys(notes)))


def origin(part):
    run = part.run
    request, provenance = run.request, run.sidecar.get("provenance", {})
    data, network = request.get("dataset", {}), request.get("classifier", {})
    versions = provenance.get("versions", {})
    facts = {
        "classifier": network.get("arch"),
        "its file": provenance.get("checkpoint"),
        "hash of its weights (SHA-256)": network.get("weights_sha256"),
        "denoiser before it (SHA-256 of its weights)": network.get("denoiser", {}).get("weights_sha256"),
        "data": data_name(run),
        "place of the data": provenance.get("data"),
        "fingerprint of the data (SHA-256)": data.get("fingerprint"),
        "noise level sigma": request.get("sigma"),
        "samples: selection (N0), certificate (N)": ", ".join(str(request[k]) for k in ("n0", "n") if k in request),
        "alpha": request.get("alpha"),
        "seed": request.get("seed"),
        "search": _settings(request.get("search")),
        "estimate": _settings(request.get("estimate")),
        "noise": request.get("noise"),
        "started": provenance.get("started"),
        "devices": provenance.get("devices"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "images left out": _left_out(run),
    }
    for file in part.files:
        facts[f"hash of {file.name} (SHA-256)"] = checksum(file)
    for _, sentence in _hashes(part):
        facts.setdefault("the file", "")
        facts["the file"] = f"{facts['the file']} {sentence}".strip()
    rows = "".join(
        f"<div><dt>{e(name)}</dt><dd>{e(value)}</dd></div>" for name, value in facts.items() if value not in (None, "")
    )
    files = " ".join(shlex.quote(printable(file)) for file in part.files)
    command = f"<pre><code>qcrs-jax verify {html.escape(files)} --recount all</code></pre>"
    told = p(
        "This command draws all counts again from their seed, and compares them with the file. It needs the checkpoint "
        "and the data set; give --checkpoint and --data_dir if they have moved."
    )
    if part.verified is None:
        said = p("It was not verified by this report. `qcrs-jax report --verify N` verifies N images of it.")
    else:
        lines = "\n".join([*part.verified.lines, *part.verified.troubles, part.verified.verdict])
        said = (
            f"<p>{state(part)}</p><details><summary>Output of the check</summary><pre>"
            f"{html.escape(printable_lines(lines))}</pre></details>"
        )
    asked = {key: value for key, value in request.items() if key != "dataset"}
    whole = html.escape(json.dumps(asked, indent=1, ensure_ascii=True))
    details = f"<details><summary>The whole request</summary><pre>{whole}</pre></details>" if asked else ""
    return f"<h3>{e(part.name)}</h3><dl class=facts>{rows}</dl>{said}{told}{command}{details}"


def _settings(settings):
    return ", ".join(f"{name} {value}" for name, value in (settings or {}).items() if value is not None)


def _left_out(run):
    left_out = run.left_out
    if left_out is None:
        return "not known: the run is not finished"
    return f"{len(left_out)}, which could not be read: {', '.join(map(str, left_out[:50]))}" if left_out else "none"

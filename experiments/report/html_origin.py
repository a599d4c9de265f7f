"""The report's account of itself: how sure it is, where results come from, whether they were verified."""

import html
import json
import shlex

from qcrs_jax.printable import printable, printable_lines
from qcrs_jax.results.account import account
from qcrs_jax.results.records import checksum, read_sidecar

from .markup import e, p
from .words import _notes, data_name


def state(part):
    """Whether the files of a run were verified, in a sentence that does not say more than was done."""
    name = f"<b>{e(part.name)}</b>: "
    if part.verified is None:
        sums = _sums(part)
        mark = "bad" if any(kind == "bad" for kind, _ in sums) else "open"
        told = " ".join(e(text) for kind, text in sums if kind != "good") or "File and sidecar agree with their sums."
        return f"<span class={mark}>not verified by this report</span> {name}{told}"
    if part.verified.troubles:
        return f"<span class=bad>not what was computed</span> {name}{e(part.verified.troubles[0])}"
    mark, word = ("good", "verified") if part.verified.whole else ("open", "not verified as a whole")
    return f"<span class={mark}>{word}</span> {name}{e(part.verified.verdict)}"


def _sums(part):
    """(kind, sentence) of each file: whether it is the one that was finished, by the sum in its sidecar."""
    if not part.run.sidecar:
        return [("open", "It has no sidecar: nothing says how it was made.")]
    said = []
    for file in part.files:
        sum_ = read_sidecar(file).get("sha256")
        if sum_ is None:
            said.append(("open", f"{file.name} has no sum in its sidecar, with which it could be compared."))
        elif sum_ != checksum(file):
            said.append(("bad", f"{file.name} was changed after its run was finished: its sum is another."))
        else:
            said.append(("good", f"{file.name} is the file that was finished: its sum is that of its sidecar."))
    return said


def sure(groups):
    members, parts = [part for group in groups for part in group.parts], []
    runs = [part.run for part in members]
    for name, run in ((part.name, part.run) for part in members):
        if "alpha" in run.request:
            text = account(run.request, len(run.records))
        else:
            text = "Its file does not say with what probability a certificate may fail; the program that made it may."
        parts.append(f"<h3>{e(name)}</h3>{p(text)}")
    accounts = {account(run.request, len(run.records)) for run in runs if "alpha" in run.request}
    notes = [note for group in groups for note in _notes(group.runs) if not any(text in note for text in accounts)]
    return "".join(parts) + "<h3>Notes</h3>" + "".join(map(p, dict.fromkeys(notes)))


def origin(part):
    run = part.run
    request, provenance = run.request, run.sidecar.get("provenance", {})
    data, network = request.get("dataset", {}), request.get("classifier", {})
    versions = provenance.get("versions", {})
    facts = {
        "classifier": network.get("arch"),
        "its file": provenance.get("checkpoint"),
        "sum of its weights (SHA-256)": network.get("weights_sha256"),
        "data": data_name(run),
        "where they were": provenance.get("data"),
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
        facts[f"sum of {file.name} (SHA-256)"] = checksum(file)
    for _, sentence in _sums(part):
        facts.setdefault("the file", "")
        facts["the file"] = f"{facts['the file']} {sentence}".strip()
    rows = "".join(
        f"<div><dt>{e(name)}</dt><dd>{e(value)}</dd></div>" for name, value in facts.items() if value not in (None, "")
    )
    files = " ".join(shlex.quote(printable(file)) for file in part.files)
    command = f"<pre><code>qcrs-jax verify {html.escape(files)} --recount all</code></pre>"
    told = p(
        "This command draws all counts again from their seed, and compares them with the file. It needs the checkpoint "
        "and the data set; --checkpoint and --data_dir say where they are now."
    )
    if part.verified is None:
        said = p("It was not verified by this report. `qcrs-jax report --verify N` verifies N images of it.")
    else:
        lines = "\n".join([*part.verified.lines, *part.verified.troubles, part.verified.verdict])
        said = (
            f"<p>{state(part)}</p><details><summary>What the check said</summary><pre>"
            f"{html.escape(printable_lines(lines))}</pre></details>"
        )
    asked = {key: value for key, value in request.items() if key != "dataset"}
    whole = html.escape(json.dumps(asked, indent=1, ensure_ascii=True))
    details = f"<details><summary>Everything that was asked</summary><pre>{whole}</pre></details>" if asked else ""
    return f"<h3>{e(part.name)}</h3><dl class=facts>{rows}</dl>{said}{told}{command}{details}"


def _settings(settings):
    return ", ".join(f"{name} {value}" for name, value in (settings or {}).items() if value is not None)


def _left_out(run):
    left_out = run.left_out
    if left_out is None:
        return "not known: the run is not finished"
    return f"{len(left_out)}, as they could not be read: {', '.join(map(str, left_out[:50]))}" if left_out else "none"

"""The checks of results files: the order in which they run, and the verdict that follows."""

import dataclasses
import tempfile
from pathlib import Path

from qcrs_jax.certification.proportions import BOUNDS
from qcrs_jax.errors import UserError
from qcrs_jax.files import read_regular, reading
from qcrs_jax.printable import printable
from qcrs_jax.results.records import (
    checksum,
    differences,
    is_results,
    read_run,
    read_sidecar,
    sidecar_path,
    whole_sidecar,
)

from ..run.pilot import pilot_path
from ..run.rebound import rebound
from ..run.stored_balls import postprocess
from .attacks import NOT_THE_SOURCE, attack_troubles, source_name
from .choice import Choice, missed
from .collapse import check_collapse
from .inputs import check_inputs, recorded_sweep, time_of_all
from .lines import CLOSE, bound_troubles, curve_troubles, header_trouble, lines_of, recorded_time, same
from .seed import check_seed
from .sidecar import NOT_PROVED, check_request, check_whole, earlier_version, summary, why_not_verified
from .trusted_paths import Where
from .uncounted import check_uncounted


def results_files(paths):
    """Yields the files in `paths` and the results files below its folders. Raises UserError for an empty folder.

    A file with a sidecar is one even if its first line is damaged. A pilot belongs to its run.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        with reading(path):
            visible = [
                f for f in sorted(path.rglob("*")) if not any(p.startswith(".") for p in f.relative_to(path).parts)
            ]
        files = [file for file in visible if file.is_file()]
        found = [f for f in files if is_results(f) or sidecar_path(f) in files and f.suffix != ".pilot"]
        if not found:
            raise UserError(f"{path}: has no results files")
        yield from found


@dataclasses.dataclass
class Found:
    """The findings of the checks of one file.

    troubles: errors.
    lines, drawn: number of images of the file, and of those that were drawn again.
    by_rule: number of images drawn again in which copies moved.
    agree: what all lines were found to agree with.
    one: "line"; "image" in a file of curves, where an image has several lines.
    short: reasons why the file is not called verified, even if all its lines were drawn again.
    words: the verdict, where no counts can be drawn again.
    """

    troubles: list = dataclasses.field(default_factory=list)
    lines: int = 0
    drawn: int = 0
    by_rule: int = 0
    agree: str = "their counts"
    one: str = "line"
    short: list = dataclasses.field(default_factory=list)
    words: str = ""

    @property
    def whole(self) -> bool:
        """Whether the file was drawn again as a whole, and nothing speaks against the verdict "verified"."""
        return 0 < self.drawn == self.lines and not self.short

    def verdict(self) -> str:
        """A description of what was done. Only a file that was drawn again as a whole is called verified."""
        if self.words:
            return self.words
        how = f", {self.by_rule} of them by the rule for near ties" if self.by_rule else ""
        if self.whole:
            return f"all {self.lines} {self.one}s were drawn again{how}{',' * bool(how)} and verified"
        said = f"consistent: its {self.lines} {self.one}s agree with {self.agree}; "
        if self.drawn:
            said += f"{self.drawn} of them were drawn again{how}; "
        else:
            said += "nothing was opened or drawn again; "
        said += f"a single forged {self.one} is missed with probability {missed(self.lines, self.drawn)}"
        return "; ".join([said, *self.short])


@dataclasses.dataclass
class Checks:
    """The settings of the checks of each file.

    choice: lines that are drawn again.
    asked: whether the user asked for lines to be drawn again. A log from which none can be drawn is then refused.
    where: present places of the inputs.
    numbers: sigma, n and alpha of logs without a sidecar; None where not given.
    """

    choice: Choice
    asked: bool
    where: Where = Where()
    numbers: dict = dataclasses.field(default_factory=dict)

    def check(self, path: Path) -> None:
        """Prints the findings about one file.

        Raises:
            UserError: it is not what was computed, or an input that a check needs is missing.
        """
        found = Found()
        for said in self.verify(path, found):
            print(printable(f"{path}: {said}"), flush=True)
        if found.troubles:
            wrong = "\n  ".join(map(printable, found.troubles))
            raise UserError(f"{path}: is not what was computed:\n  {wrong}")
        print(printable(f"{path}: {found.verdict()}"))

    def verify(self, path: Path, found: Found):
        """Yields a line for each check. Errors are appended to `found.troubles`.

        Raises:
            UserError: the file cannot be read, or an input that a check needs is missing.
        """
        sidecar = read_sidecar(path)
        request = sidecar.get("request", {})
        if "stored_balls" in request:
            yield from _stored_balls(path, request["stored_balls"], self, found)
            return
        if "rebound" in request:
            yield from _rebound(path, request["rebound"], self, found)
            return
        if not sidecar:
            yield from self._of_another_program(path, found)
            return
        check_request(path, sidecar)
        yield summary(sidecar)
        yield NOT_PROVED
        if trouble := header_trouble(path, request):
            found.troubles.append(trouble)
            yield check_whole(path, found.troubles)
            return
        if request["kind"] in ("certificates", "predictions"):
            records = read_run(path).records
            found.lines, indices = len(records), [record.idx for record in records]
            for record in records:
                found.troubles += [f"image {record.idx}: {trouble}" for trouble in bound_troubles(record, request)]
            yield f"{found.lines} lines, each compared with what follows from its counts"
        else:
            images = indices = lines_of(path)
            found.lines, found.agree = len(images), "its hash"
            if request["kind"] == "attacks":
                found.troubles += attack_troubles(path)
                found.agree, found.short = "their counts", [NOT_THE_SOURCE.format(source=source_name(request))]
                yield f"{found.lines} lines, each compared with its counts and with the line that was attacked"
            if request["kind"] == "curves":
                found.troubles += curve_troubles(images, request)
                found.agree, found.one = "its settings", "image"
        yield from check_seed(sidecar, indices, found.troubles)
        yield from check_collapse(sidecar, found.troubles)
        yield check_whole(path, found.troubles)
        yield from self._draw_again(path, sidecar, found)

    def _draw_again(self, path, sidecar, found):
        """Opens the inputs of the run and draws the chosen lines again. Reports it if there are none."""
        request, earlier = sidecar["request"], earlier_version(sidecar)
        found.short += why_not_verified(sidecar)
        if "budget" in request and request["kind"] != "pilot":
            yield from self._pilot(path, request, found)
        if earlier:
            yield earlier
        if not self.choice.draws:
            if left_out := sidecar.get("left_out"):
                yield f"{len(left_out)} images were left out; whether they can be read was not checked"
            yield (
                f"0 of {found.lines} {found.one}s drawn again: forged counts would not be found; neither checkpoint "
                "nor data were opened"
            )
            estimate = recorded_time(path, request)
            if earlier:
                found.words = (
                    f"not proved: its {found.lines} {found.one}s agree with {found.agree}, and nothing shows that "
                    "these were ever drawn, or that none is missing. Anybody can write such a file"
                )
            elif estimate:
                yield time_of_all(found.lines, [], estimate)
            return
        if earlier:
            raise UserError(
                "\n  ".join([f"{path}: no line can be drawn again: {earlier}", *map(printable, found.troubles)])
                + "\n--recount 0 checks its lines without drawing any"
            )
        if "settings" not in sidecar["provenance"]:  # reported above
            return
        yield from check_inputs(path, request, self, found)

    def _pilot(self, path, request, found):
        """The checks of the pilot, which decides sigma and the number of samples of each image."""
        pilot, of_pilot = pilot_path(path), Found()
        theirs = read_sidecar(pilot).get("request", {})
        if not self.choice.draws and not pilot.exists():
            found.short.append(f"{pilot.name} is missing")
            return
        if theirs.get("kind") != "pilot" or "stored_balls" in theirs:
            raise UserError(
                f"{pilot}: is not the pilot of {path.name}, which was run with --budget; put the right file there"
            )
        yield from (f"{pilot.name}: {said}" for said in self.verify(pilot, of_pilot) if said != NOT_PROVED)
        changed = differences({**request, "kind": "pilot"}, theirs, (f"in {path.name}", "in its pilot"))
        ours = [trouble for trouble in changed if not trouble.startswith(("platform:", "estimate.votes:"))]
        found.troubles += [f"{pilot.name}: {trouble}" for trouble in [*of_pilot.troubles, *ours]]
        if not of_pilot.whole:
            found.short.append(f"not all of {pilot.name} was drawn again either")

    def _of_another_program(self, path, found):
        """The checks of a log without a sidecar."""
        header = read_regular(path).split(b"\n", 1)[0].split(b"\t")
        if ours := {b"search_samples", b"counts0", b"counts"} & {name.strip() for name in header}:
            names = ", ".join(sorted(name.decode() for name in ours))
            found.troubles.append(
                f"its columns {names} are those of qcrs-jax, but the sidecar {sidecar_path(path).name} is missing"
            )
            return
        run = read_run(path)
        found.lines, found.agree = len(run.records), "each other, as far as can be checked"
        if self.asked and self.choice.draws:
            raise UserError(
                f"{path}: has no counts, and no sidecar that records how they were drawn: no line can be drawn again. "
                "--recount 0 checks the rest"
            )
        yield from check_uncounted(path, run, self.numbers, found.troubles)


def _stored_balls(path, made, checks, found):
    """Checks the source of the file `path`, which `memory` made, and makes the file again."""
    troubles, source = found.troubles, _source(path, made, found)
    if troubles:
        return
    of_source, theirs = Found(), read_sidecar(source)
    if "stored_balls" in theirs.get("request", {}):
        raise UserError(f"{path}: names {source.name} as its source, which is memory-based itself; memory refuses that")
    yield from (f"{source.name}: {said}" for said in checks.verify(source, of_source))
    troubles += [f"{source.name}: {trouble}" for trouble in of_source.troubles]
    if not checks.choice.draws or not theirs or troubles:
        found.words = f"its own lines were not checked; {source.name} is {of_source.verdict()}"
        yield (
            f"not checked: its own lines. `qcrs-jax memory` would need the images to make them from {source.name} again"
        )
        return
    found.words = f"it equals the result of `qcrs-jax memory` on {source.name}; there, {of_source.verdict()}"
    if not of_source.whole:
        found.words = f"it equals the result of `qcrs-jax memory` on {source.name}, which is {of_source.verdict()}"
    data = recorded_sweep(source, checks.where).data
    _compare_with(path, source, "memory", lambda again: postprocess(source, again, data), troubles)
    yield f"compared with the result of `qcrs-jax memory` on {source.name}"


def _rebound(path, made, checks, found):
    """Checks the source of the file `path`, which `rebound` made, and makes the file again."""
    source = _source(path, made, found)
    if found.troubles:
        return
    request = read_sidecar(source).get("request", {})
    if "rebound" in request or "stored_balls" in request:
        raise UserError(f"{path}: was made from {source.name}, which was itself made from another file")
    of_source, bound = Found(), read_sidecar(path)["request"].get("estimate", {}).get("bound")
    yield from (f"{source.name}: {said}" for said in checks.verify(source, of_source))
    found.troubles += [f"{source.name}: {trouble}" for trouble in of_source.troubles]
    if found.troubles:
        return
    if bound not in BOUNDS:
        raise UserError(f"{path}: has the bound {bound!r}, which is not known")
    _compare_with(path, source, "rebound", lambda again: rebound(source, bound, again), found.troubles)
    yield f"compared with the result of `qcrs-jax rebound` on {source.name}"
    found.words = f"it equals the result of `qcrs-jax rebound` on {source.name}; there, {of_source.verdict()}"
    if not of_source.whole:
        found.words = f"it equals the result of `qcrs-jax rebound` on {source.name}, which is {of_source.verdict()}"


def _source(path, made, found):
    """The file that `path` was made from, as its request says. Another hash of it is a trouble."""
    if missing := {"source", "source_sha256"} - set(made):
        raise UserError(f"{path}: its sidecar lacks {sorted(missing)[0]}, the file that it was made from")
    source = path.with_name(made["source"])
    if source == path:
        raise UserError(f"{path}: its sidecar names the file itself as its source")
    if not source.exists():
        raise UserError(f"{path}: was made from {source.name}, which is missing; put it in the same folder")
    if checksum(source) != made["source_sha256"]:
        found.troubles.append(f"{source.name} is not the file that it was made from: its hash differs")
    return source


def _compare_with(path, source, command, make, troubles):
    """Makes the file at `path` again, and compares it."""
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / path.name
        make(again)
        sidecars = [whole_sidecar(file) for file in (again, path)]
        for sidecar in sidecars:
            sidecar.get("provenance", {}).pop("stored_balls", None)  # has a path
        if sidecars[0] != sidecars[1] or not _same_lines(again.read_bytes(), read_regular(path)):
            troubles.append(f"it differs from the result of `qcrs-jax {command}` on {source.name}")


def _same_lines(ours: bytes, theirs: bytes) -> bool:
    """Whether two files have the same fields, numbers as close as SciPy's functions are on two machines."""
    if ours == theirs:
        return True
    rows, others = (
        [line.split("\t") for line in text.decode("utf-8", "replace").split("\n")] for text in (ours, theirs)
    )
    if len(rows) != len(others) or rows[0] != others[0]:
        return False
    return all(len(a) == len(b) and all(same(x, y, CLOSE) for x, y in zip(a, b)) for a, b in zip(rows, others))

"""The rule by which a line of a results file is compared with the same line drawn again, if near ties may have moved.

A noisy copy that is nearly a tie between two classes falls into one or the other by the rounding of the device and of
the program. An honest file may therefore have a copy or two of an image in another class than they fall into here.
"""

import dataclasses
import itertools
from collections.abc import Iterable

from scipy import special

from qcrs_jax.results.records import Record
from qcrs_jax.sampling.counts import SOFT_ONE
from qcrs_jax.search import SEARCHES

COPIES = 2  # copies of an image that may have moved in any case, but at most 1 in 100
SEARCHED = 0.03  # relative difference up to which a radius counts as the same, where the search chose another sigma
EVALUATIONS = 2  # evaluations that a search of no fixed number may take more, or less, to the same sigma
ROUNDING = 2**-22  # relative difference of sigmas that are the same but for the rounding of float32
NUDGE = 0.001  # by how much of sigma the noisy copies are moved, to see what near ties do to a search
CHANCE = 0.01  # lines that all lean to one side are refused if honest ones do so with a smaller probability


@dataclasses.dataclass(frozen=True)
class Rule:
    """How much near ties may change in a line.

    share: share of an image's copies that may have moved if the radius stays.
    radius: difference up to which a radius counts as the same: a share of the radius, or of sigma if that is larger.
        (Near radius 0, where the answer has half of the copies, any copy that moves is a large share of the radius.)
    """

    share: float = 0.001
    radius: float = 0.01

    def __str__(self):
        return (
            f"rule for near ties: of an image's copies {COPIES} may be in another class (but not more than 1 in 100), "
            f"or {self.share:.1%} of them if the radius is the same within {self.radius:.0%} of it, or of sigma. The "
            "class has to be the same. Over all lines the copies that moved must not favour the certified class more "
            "often than chance allows. Where the search chose another sigma here, the counts at the file's sigma are "
            f"compared in this way, and its radius has to agree within {SEARCHED:.0%} with that of the search here, or "
            f"lie among those of searches here on copies that are moved by {NUDGE:g} sigma, by which near ties fall "
            f"otherwise. The number of the search's samples has to be the same; where the search may end early, within "
            f"{EVALUATIONS} evaluations, or among theirs"
        )

    def same(self, record: Record, again: Record) -> bool:
        """Whether the radii of two lines count as the same."""
        return abs(record.radius - again.radius) <= self.radius * max(record.radius, again.radius, again.sigma or 0)


SAME_ARITHMETIC = Rule()
OTHER_DEVICE = Rule(share=0.005)
"""For a GPU and a CPU, say. TF32 moves 0.03% of all copies, and 0.1% of some images near a boundary."""
BFLOAT16 = Rule(share=0.03, radius=0.05)
"""For another device or program in bfloat16, which moves up to 1.6% of an image's copies, and radii by up to 3%."""


def rule_for(request: dict, provenance: dict, now: dict, provenance_now: dict) -> Rule:
    """The rule for a file, by the devices and the precision that it records.

    Args:
        request, provenance: of the file.
        now, provenance_now: the request and the provenance with which its lines are drawn again.
    """
    platform = str(request.get("platform"))
    coarse = request.get("dtype") == "bfloat16" or platform.startswith("tpu") and not platform.endswith("highest")
    if coarse and _made_by(provenance) != _made_by(provenance_now):
        return BFLOAT16
    return SAME_ARITHMETIC if platform == str(now.get("platform")) else OTHER_DEVICE


def _made_by(provenance):
    return provenance.get("devices"), provenance.get("versions", {}).get("jaxlib")


@dataclasses.dataclass
class Comparison:
    """A line compared with the same line drawn again.

    moved: number of copies that are in another class, out of `drawn`.
    troubles: reasons why it is not the same by the rule.
    gain: how many more copies the file has in the class that it certifies. If its sigma differs, 1 for a larger
        radius, -1 for a smaller one.
    missing: number of copies that have a class here and none in the file.
    remark: any other remark.
    """

    moved: int = 0
    drawn: int = 0
    troubles: list = dataclasses.field(default_factory=list)
    gain: int = 0
    missing: int = 0
    remark: str = ""

    def __str__(self):
        return f"{self.moved} of {self.drawn} copies in another class than in the file{self.remark}"


def moved(counts, others, n: int) -> int:
    """The smallest number of n copies that changed their class between two counts. No class counts as a class."""
    less = sum(max(a - b, 0) for a, b in zip(counts, others))
    more = sum(max(b - a, 0) for a, b in zip(counts, others))
    return max(less, more) if len(counts) == len(others) else n


def allowed(n: int) -> int:
    """The number of n copies that may have moved, whatever the effect on the radius."""
    return min(COPIES, n // 100)


def close(a: float, b: float, share: float) -> bool:
    """Whether two radii are the same within a share of the larger."""
    return abs(a - b) <= share * max(a, b)


def reached(radius: float, here: float, nearby: Iterable[Record]) -> bool:
    """Whether a search that near ties send another way may end at `radius`.

    Args:
        here: radius of the search here.
        nearby: the Records of searches here on slightly moved copies. No more are drawn than are needed.
    """
    low = high = here
    for record in itertools.chain([None], nearby):
        if record is not None:
            low, high = min(low, record.radius), max(high, record.radius)
        if low <= radius <= high or close(radius, low, SEARCHED) or close(radius, high, SEARCHED):
            return True
    return False


def took(samples: int, here: int, nearby: Iterable[Record], evaluation: int) -> bool:
    """Whether a search that near ties send another way may take `samples` samples, where it takes `here`.

    It may take one evaluation or two more or less, of `evaluation` samples each. `nearby` is that of `reached`.
    Searches of a fixed number of samples have an `evaluation` of 0, and take the same number everywhere.
    """
    if abs(samples - here) in [evaluation * more for more in range(1, EVALUATIONS + 1)]:
        return True
    low = high = here
    for record in nearby:
        low, high = min(low, record.search_samples), max(high, record.search_samples)
        if low <= samples <= high:
            return True
    return False


def compare_certificates(
    record, again, at_its_sigma, nearby, request: dict, rule: Rule = SAME_ARITHMETIC
) -> Comparison:
    """Compares the Record of a file with the one drawn now.

    Args:
        again: the Record drawn now, with its sigma and its number of samples chosen anew.
        at_its_sigma: a function that returns the Record drawn now at the sigma and with the samples of the file.
        nearby: the Records drawn now with slightly moved copies, see `reached`.
    """
    result = Comparison()
    n0 = request.get("n0") or 0
    if (record.label, record.u) != (again.label, again.u):
        result.troubles.append("its label, or the number that randomised its bound, differs")
    same_choice = _same(record.sigma, again.sigma) and record.n == again.n
    if not same_choice:
        what = "sigma" if not _same(record.sigma, again.sigma) else "number of samples"
        result.remark = f"; its {what} differs from the one chosen here, as after a near tie in the search"
        there = at_its_sigma()
    else:
        there = again
        if record.search_samples != again.search_samples:
            result.remark = f"; its search took {record.search_samples} samples, and {again.search_samples} here"
            if not took(record.search_samples, again.search_samples, nearby, _evaluation(request)):
                result.troubles.append("the search took another number of samples to the same sigma")
    n = record.n if record.n is not None else request["n"]
    selection = moved(record.counts0, there.counts0, n0) if record.counts0 else 0
    estimation = moved(record.counts, there.counts, n)
    result.moved, result.drawn = selection + estimation, n0 * bool(record.counts0) + n
    pairs = ((record.counts0, there.counts0), (record.counts, there.counts))
    result.missing = max(sum(theirs or ()) - sum(ours or ()) for ours, theirs in pairs)
    few = estimation <= allowed(n) and same_choice
    if selection > max(COPIES, rule.share * n0) or estimation > max(allowed(n), rule.share * n):
        result.troubles.append("that is more than near ties")
    if -1 not in (record.predict, again.predict) and record.predict != again.predict:
        result.troubles.append(f"the class is {record.predict} in the file and {again.predict} here")
    if record.radius is not None and not few:
        result.troubles += _radius_troubles(record, again, same_choice, nearby, rule)
    if {record.robust, again.robust} == {0, 1}:
        result.troubles.append("robust differs")
    result.troubles += _soft_troubles(record, there, again, n, n0, rule)
    if not same_choice and record.radius is not None:
        result.gain = (record.radius > again.radius) - (record.radius < again.radius)
    elif record.predict != -1:
        result.gain = record.counts[record.predict] - there.counts[record.predict]
    return result


def compare_cascades(record, again, nearby, request: dict, rule: Rule = SAME_ARITHMETIC) -> Comparison:
    """Compares the Record of a cascade with the one drawn now, stage by stage.

    After a near tie of the selection another number of stages may be sampled here. Stages that only one of the two has
    sampled are not compared; the radius must then agree as after another choice of sigma, see `compare_certificates`.
    """
    result, stages = Comparison(), len(request["search"]["sigmas"])
    few, same_choice = True, True
    for name, n in (("stages0", request["n0"]), ("stages", request["n"])):
        for theirs, ours in zip(_split(getattr(record, name), stages), _split(getattr(again, name), stages)):
            if (sum(theirs) == 0) != (sum(ours) == 0):
                same_choice = False
                continue
            count, drawn = moved(theirs, ours, n), n * (sum(theirs) > 0)
            result.moved, result.drawn = result.moved + count, result.drawn + drawn
            result.missing = max(result.missing, sum(ours) - sum(theirs))
            few &= count <= allowed(n)
            most = max(COPIES if name == "stages0" else allowed(n), rule.share * n)
            if count > most:
                result.troubles.append("that is more than near ties")
            if record.predict != -1 and name == "stages":
                result.gain += theirs[record.predict] - ours[record.predict]
    if not same_choice:
        result.remark = "; another number of stages was sampled here, as after a near tie in the selection"
    if record.label != again.label:
        result.troubles.append("its label differs")
    if -1 not in (record.predict, again.predict) and record.predict != again.predict:
        result.troubles.append(f"the class is {record.predict} in the file and {again.predict} here")
    if record.radius is not None and not (few and same_choice):
        result.troubles += _radius_troubles(record, again, same_choice, nearby, rule)
    return result


def _evaluation(request):
    """The samples of one evaluation of a search that may end early; 0 for another."""
    search = request.get("search", {})
    kind = SEARCHES.get(search.get("name", ""))
    return search.get("search_n", 0) if kind is not None and kind.may_end_early else 0


def _radius_troubles(record, again, same_choice, nearby, rule):
    """The radius, if it differs from that drawn again by more than near ties explain."""
    if not (rule.same(record, again) if same_choice else reached(record.radius, again.radius, nearby)):
        yield f"the radius is {record.radius:.6g} in the file and {again.radius:.6g} here"


def _split(counts, stages):
    """The counts of each stage."""
    size = len(counts) // stages
    return [counts[start : start + size] for start in range(0, len(counts), size)]


def _soft_troubles(record, there, again, n, n0, rule):
    """The soft votes that differ, by the rule for counts.

    The votes of each class, and their squares, must agree within the share of the sum that all copies could give.
    """
    for name, whole in (("sums0", n0 * SOFT_ONE), ("sums", n * SOFT_ONE), ("squares", n * SOFT_ONE**2)):
        ours, theirs = getattr(record, name), getattr(there, name)
        if ours and (len(ours) != len(theirs) or max(abs(a - b) for a, b in zip(ours, theirs)) > rule.share * whole):
            yield f"its {name} differ by more than rounding"
    if record.sums and not rule.same(record, again):
        yield f"the radius is {record.radius:.6g} in the file and {again.radius:.6g} here"


def compare_points(points, again, n: int, rule: Rule = SAME_ARITHMETIC) -> Comparison:
    """Compares the points of a curve of one image: each has the copies of one sigma."""
    result = Comparison()
    for point, other in zip(points, again):
        count = moved(point.counts, other.counts, n)
        result.moved, result.drawn = result.moved + count, result.drawn + n
        result.missing = max(result.missing, sum(other.counts) - sum(point.counts))
        if point.sigma != other.sigma or point.label != other.label or count > max(allowed(n), rule.share * n):
            result.troubles.append(f"at sigma {point.sigma:g} that is more than near ties")
    return result


def compare_pilots(pilot, again) -> Comparison:
    """Compares lines of a pilot, which decides the number of samples of an image but certifies nothing."""
    result = Comparison(remark="; the pilot's numbers are the same within 5%")
    for name, share in (("sigma", 1e-4), ("mean", 0.05), ("deviation", 0.05)):
        if abs(getattr(pilot, name) - getattr(again, name)) > share * abs(getattr(again, name)):
            result.troubles.append(
                f"its {name} is {getattr(pilot, name):.6g} in the file and {getattr(again, name):.6g} here"
            )
    for name in ("label", "selected", "search_samples"):
        if getattr(pilot, name) != getattr(again, name):
            result.troubles.append(f"its {name} differs")
    return result


def leaning(gains) -> str | None:
    """The error if lines that differ all favour the class that the file certifies; None otherwise."""
    gains = [gain for gain in gains if gain]
    up = sum(gain > 0 for gain in gains)
    if gains and special.bdtrc(up - 1, len(gains), 0.5) < CHANCE:
        return (
            f"of {len(gains)} lines with other counts, {up} have more copies in the certified class, or a larger "
            "radius, in the file than here: near ties would fall to either side"
        )
    return None


def of_fewer_samples(missing) -> str | None:
    """The error if every line lacks copies that have a class here; `missing` has the number for each line."""
    if missing and min(missing) > 0:
        return (
            f"each of the {len(missing)} lines has fewer copies than here, by {min(missing)} at least: fewer samples "
            "were drawn than the sidecar says"
        )
    return None


def _same(a, b):
    return a == b or (None not in (a, b) and abs(a - b) <= ROUNDING * abs(b))

"""One task at every image of a data set, with results that a rerun continues."""

import contextlib
import dataclasses
import functools
import operator
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from qcrs_jax.convert.check import class_names
from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable, printable_lines
from qcrs_jax.results.records import count_unclassified, is_cascade
from qcrs_jax.results.seeds import files_with_other_seeds, is_chosen, is_committed, text
from qcrs_jax.results.writer import Preview, Writer
from qcrs_jax.sampling.counts import default_batch_size, default_pass
from qcrs_jax.sampling.devices import agreement, broadcast_from_first, hosts_agree

from .cost import Draws, Work, duration, estimates_of
from .file_names import named, with_names
from .first_look import first_look
from .inputs import Inputs, digest, digest_of_all, open_inputs
from .pipeline import Launcher, Stopped, groups, in_turn, read_ahead, stopping
from .progress import check_installed, progress
from .settings import Sweep


def default_images(devices, image_shape) -> int:
    """The default number of images that share a forward pass.

    On a CPU it is one. Elsewhere each image has 128 copies of a pass on each device (`default_pass`), which a query of
    100 samples fills. It is at most 32.
    """
    platform = devices[0].platform
    return 1 if platform == "cpu" else min(default_pass(image_shape, platform)[1] // 128 * len(devices), 32)


@dataclasses.dataclass(frozen=True)
class Task:
    """The task at every image.

    request: numbers that decide the results, for the sidecar.
    start: (classify, images, key=, batch_size=, devices=) -> a function that waits for the findings about the images,
        as arrays: for one image (h, w, c), or with an axis in front for several.
    score: name of the figure that the progress bar shows, and the value that each record adds to its mean.
    records: (index, label, seconds, findings) -> the lines of an image.
    draws: index -> largest number of noisy copies drawn for the image.
    file: how `Writer` writes and reads these lines, if they are not those of results.
    done: records -> indices of the images that are finished.
    own: (indices, labels) -> further arguments of `start`, arrays with one value for each image.
    knows: index -> whether `own` has the values of the image.
    equal_cost: whether every image needs the same number of samples. Otherwise images run one at a time by default,
        because a group waits for its slowest image.
    leave: images that an earlier pass left out, and that stay left out.
    """

    request: dict
    start: Callable
    records: Callable
    draws: Callable[[int], Draws]
    score: tuple[str, Callable] | None = None
    file: dict = dataclasses.field(default_factory=dict)
    done: Callable = lambda records: {record.idx for record in records}
    own: Callable = lambda indices, labels: {}
    knows: Callable = lambda index: True
    equal_cost: bool = True
    leave: Sequence[int] = ()


def run_over_images(task: Task | Callable[[int], Task], sweep: Sweep, inputs: Inputs | None = None) -> Path | None:
    """Runs a task over all images, some at a time, and flushes the lines of each. Returns the results file.

    The cost is printed first. With `sweep.dry_run` that is all: nothing is written, and None is returned. If `inputs`
    are not given, they are opened as the sweep describes.

    With several hosts all compute; the first one writes, and the others get None. A task that depends on the number of
    images is given as a function of it.

    Raises:
        UserError: the checkpoint, the data set or the results file do not fit. Lines already written stay.
        Stopped: a signal stopped the run. Lines already written stay.
    """
    check_installed()
    if inputs is None:
        inputs = open_inputs(sweep)
    data, devices, program = inputs.dataset, inputs.devices, sweep.program
    indices, whole = sweep.images.of(len(data))
    if callable(task):
        task = task(len(whole))
    request = inputs.request(task.request, sweep.images, len(whole))
    inputs = inputs.seeded(request)
    sigma = None if is_cascade(request) else request.get("sigma")
    inputs.warn_of_sigma(sigma)
    inputs.note_levels(request)
    if sweep.data.on_error == "stop":  # before there is a results file
        inputs.read(indices[0])
    together = program.images or (default_images(devices, inputs.classifier.spec.image_shape) if task.equal_cost else 1)
    batch = inputs.batch
    if program.batch_size is None:
        batch = together * default_batch_size((together, *inputs.classifier.spec.image_shape))
    hosts_agree((request, indices, batch, together), devices)
    first = jax.process_index() == 0
    print(printable(f"{data.name} ({data.source}): {len(indices)} of {len(data)} images; classes {class_names(data)}"))
    if is_committed(request):
        print(
            f"committed seed {request['seed']['sha256']}: the hash of the request, the weights, the data and the images"
        )
    name, score = task.score or ("", lambda record: 0)
    left_out = [index for index in indices if index in task.leave]
    provenance = {**inputs.provenance, "settings": sweep.recorded(), "images": together, "batch": batch}
    if first and is_chosen(request) and request["kind"] != "pilot":
        provenance |= _other_seeds(sweep.results, request)
    if first and not sweep.dry_run and not sweep.results.parent.exists():
        print(printable(f"the folder {sweep.results.parent} is created for the results"))
    written = with_names(task.file, request, data, sweep.results) if first else task.file
    opened = Preview if sweep.dry_run else Writer
    with opened(sweep.results, request, provenance, **written) if first else contextlib.nullcontext() as writer:
        before = writer.done if first else []
        _check_records(before, sweep.images.extended(len(data), indices), data.labels, sweep.results)
        done, total, count = task.done(before), sum(map(score, before)), len(before)
        done = {i for i, is_done in zip(indices, broadcast_from_first([i in done for i in indices])) if is_done}
        if done:
            print(f"{sweep.results}: {len(done)} of {len(indices)} images are done; continuing with the others")
        todo = [index for index in indices if index not in done and index not in left_out]
        finished = writer.finished if first else {}
        digests = _digests(inputs, before, finished.get("pixels_sha256"), sweep.results) if finished else {}
        start, copies = starter(task, inputs, todo, together), max(1, batch // together)
        work, launch_blank = Work.of(task.draws, todo, together), functools.partial(blank, start, inputs, todo)
        cost = estimates_of(sweep.dry_run).estimate(work, inputs, launch_blank, together, copies)
        if todo or sweep.dry_run:
            print(cost, flush=True)
        if sweep.dry_run:
            return None
        bar = progress(initial=len(done), total=len(indices), unit="images", disable=not first)

        def leave_out(index, error):
            bar.write(printable_lines(f"image {index} is left out: {error}"))
            left_out.append(index)

        calls = groups(
            read_ahead(inputs.read, todo, together), together, leave_out if sweep.data.on_error == "skip" else None
        )
        launch = Launcher(start, copies, bar.write)
        try:
            with bar, stopping():
                if (
                    first and todo and ("budget" not in request or request["kind"] == "pilot")
                ):  # in the first pass, where there are two
                    for said in first_look(inputs, indices, sigma):
                        bar.write(printable(f"warning: {said}"))
                started = time.perf_counter()
                for call, answers in in_turn(calls, launch):
                    ended = time.perf_counter()
                    seconds, started = (ended - started) / len(call), ended
                    records = [
                        record
                        for (index, _, label), answer in zip(call, answers)
                        for record in named(task.records(index, label, seconds, answer), data, index)
                    ]
                    if first:
                        writer.write(*records)
                    for index, image, _ in call:
                        digests[index] = digest(image)
                        spoilt, copies = count_unclassified([r for r in records if r.idx == index], request)
                        if spoilt:
                            why = "count for no class: a logit is not finite"
                            bar.write(f"image {index}: {spoilt} of {copies} noisy copies {why}")
                    done |= {index for index, _, _ in call}
                    total, count = total + sum(map(score, records)), count + len(records)
                    if task.score:
                        bar.set_postfix_str(f"{name} {total / count:.4f}")
                    bar.update(len(call))
                    if cost.seconds is None and (rest := len(indices) - len(done) - len(left_out)) > 0:
                        rate = (
                            f"about {duration(seconds * rest)} for the other {rest} images, judging by the first "
                            f"{len(call)}"
                        )
                        bar.write(rate)
                        cost = dataclasses.replace(cost, seconds=0.0)
                if first:
                    digests |= _digests(inputs, [record for record in before if record.idx not in digests])
        except (UserError, Stopped) as error:
            number = (
                f"{len(done)} " if isinstance(error, UserError) else ""
            )  # a signal may come before the count is up to date
            so_far = f"The {number}results so far are kept in {sweep.results}; the same command continues there"
            error.add_note(so_far)
            raise
        if first:
            left_out_before = [index for index in finished.get("left_out", []) if index not in indices]
            writer.finish(left_out + left_out_before, digest_of_all(digests))
    if not done:
        raise UserError(f"all {len(left_out)} images were left out; {sweep.results} holds no results")
    if left_out:
        print(f"{len(left_out)} of {len(indices)} images were left out; the figures are over the other {len(done)}")
    return sweep.results if first else None


def _other_seeds(path, request) -> dict:
    """The record of results beside `path` with the same request and other seeds. Reports them on stderr."""
    if not (others := files_with_other_seeds(path, request)):
        return {}
    names = ", ".join(f"{other['file']} ({text(other['seed'])})" for other in others)
    said = (
        f"warning: {path}: {text(request['seed'])} is not the first: runs in the same folder have the same request "
        f"with another seed, {names}. The sidecar names them. The best of several seeds is no certificate"
    )
    print(printable(said), file=sys.stderr)
    return {"other_seeds": others}


def starter(task, inputs, todo, together):
    """The launcher of a group of images: (group, copies) -> a function that waits for the answers of its images."""
    keys = inputs.keys(todo)
    data, impl = np.asarray(jax.random.key_data(keys)), jax.random.key_impl(keys)
    place_of = {index: place for place, index in enumerate(todo)}

    def start(call, copies):
        padded = call + [call[-1]] * (together - len(call))  # fewer images would need another compiled program
        images = np.stack([image for _, image, _ in padded])
        indices, labels = [index for index, _, _ in padded], np.array([label for _, _, label in padded])
        keys = data[[place_of[index] for index in indices]]
        own = task.own(indices, labels)
        agreed = agreement((images, keys), inputs.devices)
        if together == 1:
            images, keys, own = jax.tree.map(operator.itemgetter(0), (images, keys, own))
        waiting = task.start(
            inputs.classify,
            images,
            key=jax.random.wrap_key_data(keys, impl=impl),
            **own,
            batch_size=copies,
            devices=inputs.devices,
        )

        def conclude():
            agreed()
            answers = jax.tree.map(np.asarray, waiting())
            if together == 1:
                return [answers]
            return [jax.tree.map(operator.itemgetter(i), answers) for i in range(len(call))]

        return conclude

    return start


def blank(start, inputs, todo, copies):
    """A launcher of a group as `start` launches it, with a black image in the place of the first of `todo`."""
    image, label = np.zeros(inputs.classifier.spec.image_shape, np.float32), int(inputs.dataset.labels[todo[0]])
    return lambda: start([(todo[0], image, label)], copies)


def _digests(inputs, records, whole=None, path=None) -> dict[int, str]:
    """The digests of the images of `records` by index. Raises UserError if `whole` is not the hash over them."""
    digests = {index: digest(inputs.read(index)[0]) for index in {record.idx for record in records}}
    if whole not in (None, digest_of_all(digests)):
        raise UserError(
            f"{path}: the pixels of its {len(digests)} images have changed since: their hash differs. Restore the "
            "images, or choose another file"
        )
    return digests


def _check_records(records, indices, labels, path):
    """Raises UserError for records that do not belong to the images at `indices`, which have these labels."""
    for record in records:
        if record.idx not in indices or record.label != labels[record.idx]:
            raise UserError(
                f"{path}: its line of image {record.idx}, label {record.label}, belongs to no image of this run; "
                "mend the line, or delete it: the same command then computes what is missing"
            )

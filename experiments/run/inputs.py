"""The classifier and the data set of a run, opened on its devices, and what a sidecar says of both."""

import argparse
import dataclasses
import datetime
import hashlib
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from qcrs_jax.convert.check import check_fit, fit_image
from qcrs_jax.convert.flags import opening_of, pixels, print_notes
from qcrs_jax.convert.load import open_classifier

from qcrs_jax.data.image_files import resized
from qcrs_jax.errors import UserError
from qcrs_jax.machine import cores, cpu_quota, usable_cpus
from qcrs_jax.printable import printable
from qcrs_jax.results.records import read_sidecar, sidecar_path
from qcrs_jax.sampling.counts import default_batch_size
from qcrs_jax.sampling.devices import choose_devices, join_hosts, place
from qcrs_jax.sampling.noise import IMPLEMENTATIONS, recorded
from qcrs_jax.version import version

from ..commands.flags import part, share
from . import certify, curve, predict
from .batch_size import fastest_batch
from .class_names import known_classes, order_warning
from .data_sets import open_dataset
from .full_card import no_room
from .names import is_python


@dataclasses.dataclass(frozen=True)
class Inputs:
    """An opened classifier and data set, on the devices of the run.

    batch: noisy copies per forward pass of a device.
    circumstances: what decides the results beside a task's own numbers.
    provenance: where and with what the run was started; a rerun may differ.
    """

    classifier: object
    dataset: object
    classify: Callable
    batch: int
    devices: list
    circumstances: dict
    provenance: dict
    checkpoint: Path
    seed: int
    prng: str

    @property
    def program(self) -> dict:
        """What `certify` is told of one image at a time."""
        return {"batch_size": self.batch, "devices": self.devices}

    def read(self, index: int):
        """Image and label at `index`. Raises UserError where it cannot be read or has another shape."""

        image, label = self.dataset[index]
        return fit_image(self.classifier.spec, self.dataset, index, image, self.checkpoint), label

    def keys(self, indices):
        """The keys of all noise of the images at `indices`."""

        seed = jax.random.key(self.seed, impl=IMPLEMENTATIONS[self.prng])
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(seed, np.asarray(indices, np.uint32))


def digest(image) -> str:
    """SHA-256 of the pixels of an image (h, w, c), float32."""

    return hashlib.sha256(np.asarray(image, "<f4").tobytes()).hexdigest()


def digest_of_all(digests: dict[int, str]) -> str:
    """One sum over the digests of images by their indices."""
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def open_inputs(args) -> Inputs:
    """The checkpoint and the data set that `args` name; prints which classifier it is.

    Raises:
        UserError: one of them cannot be opened, or they do not fit.
    """

    if args.distributed:
        join_hosts(args.coordinator, args.process)
    devices = open_devices(args.devices, args.distributed)  # before anything touches them
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w")  # the first one tells
    opening = opening_of(args, "none" if args.macer else args.normalization)
    if is_python(args.checkpoint):
        from .python_classifier import open_python

        dataset = open_dataset(args)
        classifier = open_python(args.checkpoint, _shape_of(dataset, args))
    else:
        classifier = open_classifier(args.checkpoint, opening)
        dataset = open_dataset(args)
    check_fit(classifier.spec, dataset, args.checkpoint)
    spec = classifier.spec
    if args.resize is not None:
        dataset = resized(dataset, args.resize, *spec.image_shape[:2])
    print(
        printable(f"{args.checkpoint}: {spec.arch}, {spec.num_classes} classes, normalisation {spec.mean} / {spec.std}")
    )
    print_notes(args.checkpoint, classifier)
    if said := order_warning(known_classes(classifier, args.checkpoint), dataset.class_names, f"{args.checkpoint}"):
        print(printable(f"warning: {said}"))
    if args.macer and spec.source.get("layout") not in ("MACER", None):
        print(printable(f"warning: its layout is {spec.source['layout']}'s, not MACER's; is --macer right?"))
    if spec.source.get("sigma", args.sigma) != args.sigma:
        print(f"warning: it was trained at sigma {spec.source['sigma']:g}, and --sigma is {args.sigma:g}")
    classify = place(classifier.inference(dtype=args.dtype), devices)
    if args.batch == "auto":
        batch = fastest_batch(classify, spec.image_shape, devices)
    else:
        batch = args.batch or default_batch_size(spec.image_shape)
    return Inputs(
        classifier=classifier,
        dataset=dataset,
        classify=classify,
        batch=batch,
        devices=devices,
        circumstances=_circumstances(classifier, dataset, args),
        provenance=_provenance(args, dataset, batch, devices),
        checkpoint=args.checkpoint,
        seed=args.seed,
        prng=args.prng,
    )


def _shape_of(dataset, args) -> tuple[int, int, int]:
    """The shape of the images that a classifier of one's own gets: of the first, or as --image_size says."""
    shape = dataset[0][0].shape
    size = args.image_size or shape[:2]
    return (size[0], size[-1], shape[2])


def open_devices(count: int | None = None, distributed: bool = False) -> list:
    """What `choose_devices` gives; prints why there are fewer than the CPU's cores.

    Raises:
        UserError: this host has fewer than `count`, or a process of several finds no device of its own.
    """

    try:
        devices = choose_devices(count)
    except RuntimeError as error:
        if not distributed or (no_room(error) and "no supported devices" not in str(error)):
            raise
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"--distributed: this process could not open a device (CUDA_VISIBLE_DEVICES is {seen}). Start as many "
            "processes on a host as it has cards, each of which sees its own card or all of them. It said: "
            f"{first[:200]}"
        ) from error
    own = [device for device in devices if device.process_index == jax.process_index()]
    if count is None and own[0].platform == "cpu" and len(own) == usable_cpus() < cores():
        print(
            f"this container may use {cpu_quota():.3g} CPUs' time on {cores()} cores: "
            f"{len(own)} CPU device{'s' * (len(own) > 1)} instead of {cores()}"
        )
    return devices


def indices_of(args, dataset) -> tuple[range, range]:
    """The images that `args` ask for, of this shard and of the whole run.

    Raises:
        UserError: there are none.
    """
    whole = range(0, len(dataset) if args.max < 0 else min(args.max, len(dataset)), args.skip)
    if not whole:
        raise UserError(f"--max {args.max} leaves no image")
    part, of = args.shard or (1, 1)
    if not whole[part - 1 :: of]:
        raise UserError(f"--shard {part}/{of}: leaves no image")
    return whole[part - 1 :: of], whole


def shard_of(args, images: int) -> dict:
    """What a request says of the shard that `args` ask for, of a run over so many images; {} for a whole run."""
    return {"shard": {"part": args.shard[0], "of": args.shard[1], "images": images}} if args.shard else {}


def continued(args, dataset, indices: range) -> range:
    """The images that the results file of a run over `indices` may have: a run that is no shard may be extended."""
    return indices if args.shard else range(0, len(dataset), args.skip)


def _circumstances(classifier, dataset, args):
    """What decides the results beside the task's own numbers."""

    spec = classifier.spec
    return {
        "noise": recorded(args.prng),
        "platform": f"{jax.default_backend()}, matmul precision {jax.config.jax_default_matmul_precision}",
        "dtype": args.dtype,
        "classifier": {
            "arch": spec.arch,
            "options": spec.options,
            "mean": spec.mean,
            "std": spec.std,
            "weights_sha256": classifier.fingerprint(),
            **({"image_shape": spec.image_shape} if "image_size" in spec.source else {}),
        },
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "class_names": dataset.class_names,
        },
    }


def _provenance(args, dataset, batch_size, devices):
    """Where and with what the run was started; a rerun may differ."""

    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "arguments": {name: _plain(value) for name, value in vars(args).items() if name not in _NOT_RECORDED},
        "checkpoint": str(args.checkpoint),
        "data": dataset.source,
        "batch": batch_size,
        "devices": f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("qcrs_jax", "jax", "jaxlib", "flax", "numpy")},
        },
    }


def _plain(value):
    return str(value) if isinstance(value, Path) else value


_NOT_RECORDED = ("run", "results", "dry_run")


# Flags that tell where a run is computed, not what.
_WHEREABOUTS = {
    **dict.fromkeys(("devices", "images", "coordinator", "process")),
    "distributed": False,
}


def recorded_arguments(results: Path):
    """The arguments that the run of a results file was started with, for this machine, and the batch that it had.

    Flags that the command has learnt since have their defaults.

    Raises:
        UserError: its sidecar does not tell them.
    """

    sidecar = read_sidecar(results)
    provenance = sidecar.get("provenance", {})
    recorded = provenance.get("arguments")
    if not recorded:
        raise UserError(
            f"{sidecar_path(results)}: does not tell how the run was started, as files of earlier versions do not; "
            "--recount 0 checks its bounds"
        )
    method = sidecar["request"].get("method")
    parser = argparse.ArgumentParser()
    {"curve": curve, "predict": predict}.get(method, certify).add_arguments(parser)
    defaults = vars(parser.parse_args(["", "", "--sigma", "1"]))
    fitting = _fitting(parser, recorded, defaults, sidecar_path(results))
    args = argparse.Namespace(
        **{**defaults, **fitting, **_WHEREABOUTS, "batch": provenance.get("batch"), "results": results}
    )
    for name in ("checkpoint", "data_dir"):
        value = getattr(args, name)
        setattr(args, name, None if value is None else Path(value))
    if args.class_order is not None:  # its file may be elsewhere by now
        args.class_order = sidecar["request"]["dataset"]["class_names"]
    return args


def _fitting(parser, recorded, defaults, file):
    """The recorded arguments that the command knows; raises UserError for one that the command line could not give."""
    actions = {action.dest: action for action in parser._actions}
    for name in recorded.keys() & actions.keys():
        if not _could_be_given(actions[name], recorded[name], defaults[name] if name in defaults else None):
            raise UserError(f"{file}: not the sidecar of a run: its argument {name} is {str(recorded[name])[:60]!r}")
    return {name: value for name, value in recorded.items() if name in defaults}


def _could_be_given(action, value, default):
    if value is None or isinstance(value, bool):
        return value is default or isinstance(value, bool) and action.nargs == 0
    if isinstance(value, dict) or action.nargs == 0:
        return False
    if isinstance(value, list):
        several = isinstance(action, argparse._AppendAction) or action.nargs is not None or action.type is part
        return several and all(_is_of(action, inner) for inner in value)
    return action.nargs is None and not isinstance(action, argparse._AppendAction) and _is_of(action, value)


def _is_of(action, value):
    if action.choices is not None:
        return value in action.choices
    if isinstance(value, bool | list | dict) or value is None:
        return False
    if action.type in (int, pixels) or action.type is part:
        return isinstance(value, int)
    if action.type in (float, share):
        return isinstance(value, int | float) and math.isfinite(value)
    if action.type in (None, Path):
        return isinstance(value, str)
    return isinstance(value, int) or value in ("all", "auto")

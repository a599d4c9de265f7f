"""Convert a PyTorch checkpoint to a Flax classifier (a directory with one file). Needs no PyTorch.

Reads files of torch.save, old and new, and .safetensors, in the layouts of Cohen's RS, QCRS, SmoothAdv, MACER, DDRS,
ANCER, torchvision, timm and Idelbayev's ResNets. Recognises the network from its tensors, and writes the weights with
their metadata: architecture, classes, normalisation, SHA-256. Every tensor must be used and every variable filled.
--check tells whether the normalisation is right.
"""

from pathlib import Path

from qcrs_jax.printable import printable

from .flags import add_opening_arguments


def add_arguments(parser):
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help=".pth, .pth.tar, .th, .pt or .safetensors, or zoo:NAME"
    )
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="directory to write")
    add_opening_arguments(parser)
    parser.add_argument("--check", metavar="DATASET", help="measure clean and noisy accuracy on this data set")
    parser.add_argument("--data_dir", type=Path, help="where the data set of --check is")
    parser.add_argument(
        "--resize", type=int, metavar="S", help="as of `qcrs-jax certify`: short side S, then the centre"
    )
    parser.add_argument("--split", choices=["train", "test", "val"], default="test", help="default: test")
    parser.add_argument(
        "--class_order", metavar="number|text|FILE", help="as of `qcrs-jax certify`: which class has label 0, 1, ..."
    )
    parser.add_argument("--memory_limit", type=float, metavar="GIB", help="as of `qcrs-jax certify`, for --check")
    parser.add_argument("--skip", type=int, default=10, metavar="K", help="check images 0, K, 2K, ... (default: 10)")
    parser.add_argument("--sigma", type=float, default=0.25, help="noise level of the check (default: 0.25)")
    parser.add_argument("--overwrite", action="store_true", help="replace a classifier that OUT_DIR already holds")


def run(args):
    from qcrs_jax.data.image_files import resized
    from qcrs_jax.data.load import load_dataset
    from qcrs_jax.files import reading, writing
    from qcrs_jax.models.checkpoint import CheckpointError, is_classifier, save_classifier

    from .check import accuracy, check_fit
    from .files.stand_ins import unpacked
    from .fill import count_parameters
    from .flags import opening_of, print_notes
    from .load import convert_file
    from .zoo import resolve

    file = resolve(args.checkpoint)
    with reading(file, CheckpointError):
        if is_classifier(file):
            raise CheckpointError(f"{file}: is a converted classifier already; open it as it is, or copy it")
        if file.is_dir():
            raise CheckpointError(f"{file}: {unpacked(file)}")
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file")
    classifier = convert_file(file, opening_of(args, args.normalization))
    if args.check and args.skip < 1:
        raise CheckpointError(f"--skip must be at least 1, not {args.skip}")
    dataset = None
    if args.check:
        dataset = load_dataset(
            args.check, args.data_dir, args.split, class_order=args.class_order, memory_limit=args.memory_limit
        )
        for note in dataset.notes:
            print(printable(f"note: {note}"))
        check_fit(classifier.spec, dataset, args.checkpoint)
        if args.resize is not None:
            dataset = resized(dataset, args.resize, *classifier.spec.image_shape[:2])
    with writing(args.out_dir, CheckpointError):
        save_classifier(classifier, args.out_dir, overwrite=args.overwrite)
    spec = classifier.spec
    options = "".join(f", {name} {value}" for name, value in spec.options.items())
    print(printable(f"{args.checkpoint} ({spec.source['layout']} layout) -> {args.out_dir}"))
    print(f"  {spec.arch}{options}: {count_parameters(classifier.model):,} parameters, {spec.num_classes} classes")
    print(f"  images {spec.image_shape}, normalisation {spec.source['normalization']}: {spec.mean} / {spec.std}")
    print_notes(args.checkpoint, classifier)
    if dataset:
        indices = range(0, len(dataset), args.skip)
        clean, noisy = (accuracy(classifier, dataset, indices, sigma) for sigma in (0.0, args.sigma))
        print(f"  accuracy on {len(indices)} images of {dataset.name} ({dataset.source}): {clean:.4f} clean")
        print(f"  and {noisy:.4f} under noise of {args.sigma:g}")

"""The experiments of the papers, as data: the commands of each, its source, its time, and the result to expect."""

import dataclasses
import shlex
import textwrap
from pathlib import Path

IMAGES = Path(__file__).parent / "assets" / "fashion_mnist_test_500.npz"
"""Every 20th of the test images of Fashion-MNIST."""
GAUSSIAN, MACER = "zoo:fashion_mnist-lenet-sigma0.25", "zoo:fashion_mnist-lenet-macer-sigma0.25"
RANGE = "zoo:fashion_mnist-lenet-sigma0.2-1"
CONSISTENCY = "zoo:fashion_mnist-lenet-consistency-sigma0.2-1"
RESNET, RESNET_LARGE = "zoo:cifar10-resnet20-sigma0.25", "zoo:cifar10-resnet20-sigma0.50"
RESNET_RANGE = "zoo:cifar10-resnet20-sigma0.12-0.5"
SEED = "--seed 0"
"""The seed of the published results, which the same commands give again."""
DATA = f"--dataset npz --data_dir {shlex.quote(str(IMAGES))} --sigma 0.25 --skip 2 {SEED}"
COHEN = "--max 1 --alpha 0.2 --N 4 --N0 4 --batch 2"
TINY = f"{COHEN} --gradient_n 4"
"""Quick runs of networks that are slow on a CPU."""
BRACKET = "--left 0.08 --right 0.9"


@dataclasses.dataclass(frozen=True)
class Preset:
    """An experiment.

    asks: the question.
    source: the place in the papers that it reproduces.
    takes: its time on two CPU cores, or its requirements.
    expect: the result to expect.
    commands: commands of qcrs-jax, run in the folder of the results.
    quick: flags that a quick run adds to the commands that certify or measure.
    """

    asks: str
    source: str
    takes: str
    expect: str
    commands: tuple[str, ...]
    quick: str = "--max 5 --N 200 --N0 20"


def _methods(checkpoint, name):
    """Runs of one network by every method, of 16 500 samples an image each but for the exhaustive search."""
    certify = f"certify {checkpoint} {name}"
    return (
        f"{certify}-cohen.tsv {DATA} --method cohen --N 16500",
        f"{certify}-ddrs.tsv {DATA} --method ddrs {BRACKET} --N 13500",
        f"{certify}-bisection.tsv {DATA} {BRACKET} --epsilon 0.03 --search bisection --N 10000",
        f"{certify}-golden.tsv {DATA} {BRACKET} --epsilon 0.03 --N 12000",
        f"{certify}-bayesian.tsv {DATA} {BRACKET} --search bayesian --gradient_n 100 --evaluations 20 --N 14500",
        f"{certify}-grid.tsv {DATA} {BRACKET} --epsilon 0.03 --search grid --objective lcb --gradient_n 2000 --N 12000",
    )


def _files(name, methods="cohen ddrs bisection golden bayesian grid"):
    return " ".join(f"{name}-{method}.tsv" for method in methods.split())


def _settings(epsilons=(0.01, 0.03, 0.1), samples=(100, 500, 2000)):
    """Runs of golden section with one of two settings at a time changed from (0.03, 500), as the file names show."""
    settings = [(e, 500) for e in epsilons] + [(0.03, n) for n in samples if n != 500]
    names = {(e, n): f"epsilon{e:g}-n{n}.tsv" for e, n in settings}
    runs = tuple(
        f"certify {GAUSSIAN} {name} {DATA} {BRACKET} --epsilon {e:g} --gradient_n {n} --objective lcb --N 10000"
        for (e, n), name in names.items()
    )
    return (
        f"certify {GAUSSIAN} cohen.tsv {DATA} --method cohen --N 10000",
        *runs,
        f"compare cohen.tsv {' '.join(names.values())} --format markdown --out compare.md",
    )


def _frontier(checkpoint, flags):
    """Runs of one network with searches of several costs, as the file names show, and N = 10 000 or a budget."""
    certify = f"certify {checkpoint}"
    bayesian = {1000: (100, 10), 2000: (100, 20), 6500: (500, 13)}
    runs = {
        "cohen.tsv": "--method cohen",
        "bisection-6500.tsv": "--search bisection",
        "golden-4500.tsv": "",
        **{
            f"bayesian-{samples}.tsv": f"--search bayesian --gradient_n {n} --evaluations {evaluations}"
            for samples, (n, evaluations) in bayesian.items()
        },
        **{
            f"bayesian-2000-budget-{mean}.tsv": f"--search bayesian --gradient_n 100 --evaluations 20 --budget {mean}"
            for mean in (5000, 10000)
        },
    }
    files = " ".join(name for name in runs if not name.startswith("bisection"))
    return (
        *(f"{certify} {name} {flags} --epsilon 0.03 --N 10000 {method}" for name, method in runs.items()),
        f"compare bisection-6500.tsv {files} --format markdown --out compare.md --frontier frontier.png",
    )


def _collapse(checkpoint, data, flags):
    """Runs of one network with brackets that end where they were published, and where accuracy under noise is lost."""
    certify = f"certify {checkpoint}"
    searches = {
        "bisection": "--search bisection --epsilon 0.03",
        "bayesian": "--search bayesian --gradient_n 100 --evaluations 20",
    }
    ends = {"": "--right 0.9", "-auto": "--right auto"}
    runs = {
        f"{name}{end}.tsv": f"{search} --left 0.08 {right}"
        for name, search in searches.items()
        for end, right in ends.items()
    }
    return (
        f"{certify} cohen.tsv {data} {flags} --N 10000 --method cohen",
        *(f"{certify} {name} {data} {flags} --N 10000 {method}" for name, method in runs.items()),
        f"collapse {checkpoint} {data} --sigma 0.25 --image_count 200 --format markdown --out collapse.md --plot "
        "collapse.png",
        f"compare cohen.tsv {' '.join(runs)} --format markdown --out compare.md",
    )


def _classes(checkpoint, flags, evaluations, names=("usual", "classes", "rebound", "compare")):
    """Runs of one network without and with the bound over classes, and the former given the bound afterwards."""
    search = f"{flags} --sigma 0.25 --search bayesian {evaluations} --n 10000"
    usual, classes, rebound, report = names
    return (
        f"certify {checkpoint} {usual}.tsv {search}",
        f"certify {checkpoint} {classes}.tsv {search} --bound classes",
        f"rebound {usual}.tsv --bound classes --out {rebound}.tsv",
        f"compare {usual}.tsv {classes}.tsv {rebound}.tsv --format markdown --out {report}.md",
    )


def _classes_cifar10(checkpoint, flags):
    """The same with a bracket that ends where accuracy is lost, and with the published one."""
    names = ("wide", "wide-classes", "wide-rebound", "wide")
    return (
        *_classes(checkpoint, f"{flags} --left 0.08 --right auto", "--search_n 500 --evaluations 13"),
        *_classes(checkpoint, f"{flags} --left 0.08 --right 0.9", "--search_n 100 --evaluations 20", names),
    )


def _cascade(checkpoint, data, other):
    """Runs of one network by all rules: those of one classifier for all inputs, and those of a sigma for each image.

    Then those of one classifier for another network.
    """
    certify, cohen = f"certify {checkpoint}", ("1", "0.7", "0.5")
    own = "--sigma 0.5 --search_n 500"
    return (
        f"{certify} cascade.tsv {data} --n 10000 --method cascade --sigmas 1,0.5,0.25",
        *(f"{certify} cohen-{sigma}.tsv {data} --n 10000 --method cohen --sigma {sigma}" for sigma in cohen),
        *(f"rebound cohen-{sigma}.tsv --bound classes --out cohen-{sigma}-classes.tsv" for sigma in cohen[:2]),
        f"{certify} frozen.tsv {data} --n 10000 {own} --search grid --left 0.25 --right 1 --epsilon 0.25 --no-collapse",
        f"{certify} bayesian.tsv {data} --n 10000 {own} --search bayesian --left 0.12 --right auto --evaluations 13",
        "compare cohen-0.7.tsv cohen-1.tsv cohen-0.5.tsv cohen-0.7-classes.tsv cohen-1-classes.tsv cascade.tsv "
        "frozen.tsv bayesian.tsv --format markdown --out compare.md",
        "plot cohen-0.7.tsv cohen-1-classes.tsv cascade.tsv bayesian.tsv --out plot.png",
        f"certify {other} other-cohen-1.tsv {data} --n 10000 --method cohen --sigma 1",
        "rebound other-cohen-1.tsv --bound classes --out other-cohen-1-classes.tsv",
        f"certify {other} other-cascade.tsv {data} --n 10000 --method cascade --sigmas 1,0.5,0.25",
        "compare cohen-1.tsv other-cohen-1.tsv other-cohen-1-classes.tsv other-cascade.tsv --format markdown --out "
        "other.md",
    )


def _cascade_cifar10(data):
    """The same of a network that was trained on a range of sigmas, and a cascade of two that were trained at one."""
    certify, cohen = f"certify {RESNET_RANGE}", ("0.5", "0.35", "0.25")
    own = "--sigma 0.25"
    return (
        f"{certify} cascade.tsv {data} --method cascade --sigmas 0.5,0.25,0.125",
        *(f"{certify} cohen-{sigma}.tsv {data} --method cohen --sigma {sigma}" for sigma in cohen),
        *(f"rebound cohen-{sigma}.tsv --bound classes --out cohen-{sigma}-classes.tsv" for sigma in cohen),
        f"{certify} frozen.tsv {data} {own} --search grid --search_n 500 --left 0.125 --right 0.5 --epsilon 0.125 "
        "--no-collapse",
        f"{certify} bayesian.tsv {data} {own} --search bayesian --search_n 100 --evaluations 20 --left 0.08 "
        "--right auto",
        f"certify {RESNET_LARGE} two-cohen-0.5.tsv {data} --method cohen --sigma 0.5",
        f"certify {RESNET} two-cohen-0.25.tsv {data} --method cohen --sigma 0.25",
        f"certify {RESNET_LARGE} two-cascade.tsv {data} --method cascade --sigmas 0.5,0.25 --stages {RESNET}",
        *(f"rebound two-cohen-{sigma}.tsv --bound classes --out two-cohen-{sigma}-classes.tsv" for sigma in cohen[::2]),
        "compare cohen-0.35.tsv cohen-0.5.tsv cohen-0.25.tsv cohen-0.5-classes.tsv cohen-0.35-classes.tsv "
        "cohen-0.25-classes.tsv cascade.tsv frozen.tsv bayesian.tsv --format markdown --out compare.md",
        "compare two-cohen-0.5.tsv two-cohen-0.25.tsv two-cohen-0.25-classes.tsv two-cohen-0.5-classes.tsv "
        "two-cascade.tsv --format markdown --out two.md",
        "plot cohen-0.35.tsv cohen-0.5-classes.tsv cascade.tsv bayesian.tsv --out plot.png",
    )


def _attack(checkpoint, data, flags):
    """A run of one network, and attacks on it: on the classifiers of its certificates, and on the rule as a whole."""
    return (
        f"certify {checkpoint} golden.tsv {data} {flags} {BRACKET} --epsilon 0.03 --N 10000 --no-collapse",
        "attack golden.tsv cohen.tsv --draws 32",
        "attack golden.tsv frozen.tsv --method frozen --attempts 4 --draws 32",
        "table golden.tsv cohen.tsv frozen.tsv --format markdown --out table.md",
        "plot golden.tsv cohen.tsv frozen.tsv --out gap.png",
    )


def _published(checkpoint, results, flags):
    """A command of QCRS's program; its search is the bisection."""
    return f"certify {{base}}/{checkpoint} {results} --data_dir {{base}}/data --search bisection {flags} {SEED}"


TRAININGS = {
    "gaussian": "--method gaussian --epochs 150",
    "macer": "--method macer",
    "smoothadv": "--method smoothadv",
    "consistency": "--method consistency",
    "smoothmix": "--method smoothmix",
    "catrs": "--method catrs --teacher gaussian",
}
"""Each method of training with its published settings; the Gaussian network, trained as long, is also the teacher."""


def _trained(sigma):
    """Trainings of ResNet-110 on CIFAR-10 by every method as published, and Cohen's certificates of their networks."""
    data = "--dataset cifar10 --data_dir {base}/data"
    return (
        *(
            f"train {name} --arch cifar_resnet110 {data} --sigma {sigma} {flags} {SEED}"
            for name, flags in TRAININGS.items()
        ),
        *(
            f"certify {name} {name}.tsv {data} --sigma {sigma} --method cohen --N 100000 --skip 1 {SEED}"
            for name in TRAININGS
        ),
        f"table {' '.join(f'{name}.tsv' for name in TRAININGS)} --format markdown --out table.md",
    )


SHORT_TRAININGS = {
    "gaussian": "--lr 0.05",
    "macer": "--method macer --copies 4 --lr 0.01",
    "smoothadv": "--method smoothadv --copies 2 --steps 4 --warmup 1 --lr 0.05",
    "consistency": "--method consistency --lr 0.05",
    "smoothmix": "--method smoothmix --copies 2 --steps 4 --warmup 1 --lr 0.05",
    "catrs": "--method catrs --copies 2 --steps 4 --teacher start --teacher_samples 1000 --lr 0.05",
}
"""The same methods on a small network, with fewer copies and steps than the papers take."""


def _trained_short(sigma):
    """Trainings of a LeNet on Fashion-MNIST by every method, all from one network, and the certificates of each."""
    data = f"--dataset fashion_mnist --data_dir {{base}}/data/fashion-mnist --sigma {sigma} --schedule onecycle"
    images = DATA.replace("--sigma 0.25 --skip 2", "--n 10000")
    runs = {
        "cohen": f"--method cohen --sigma {sigma}",
        "cascade": f"--method cascade --sigmas 0.75,{sigma},0.25",
        "qcrs": f"--sigma {sigma} --search bayesian --search_n 100 --evaluations 20 --left 0.12 --right auto",
    }
    files = {rule: " ".join(f"{name}-{rule}.tsv" for name in SHORT_TRAININGS) for rule in ("cohen", "classes", *runs)}
    return (
        f"train start --arch lenet {data} --batch 128 --epochs 12 --lr 0.05 {SEED}",
        *(
            f"train {name} --init start {data} --batch 256 --epochs 10 {flags} {SEED}"
            for name, flags in SHORT_TRAININGS.items()
        ),
        *(
            f"certify {name} {name}-{rule}.tsv {images} {flags}"
            for name in SHORT_TRAININGS
            for rule, flags in runs.items()
        ),
        *(f"rebound {name}-cohen.tsv --bound classes --out {name}-classes.tsv" for name in SHORT_TRAININGS),
        *(f"compare {files[rule]} --format markdown --out {rule}.md" for rule in files),
        f"table {' '.join(files.values())} --format markdown --out table.md",
        f"plot {files['cohen']} --out cohen.png",
    )


def _denoised(clean, zoo):
    """A denoiser with the network `clean` behind it, as it is and fine-tuned, beside networks trained with noise."""
    data = "--dataset folder --data_dir {base}/cifar10"
    train = f"{data} --sigma_range 0.1,1 --schedule onecycle --batch 256"
    search = "--sigma 0.25 --search bayesian --search_n 100 --evaluations 20 --left 0.08"
    methods = {
        **{f"cohen-{sigma}": f"--method cohen --sigma {sigma}" for sigma in ("0.25", "0.5", "1")},
        "bisection": "--sigma 0.25 --search bisection --epsilon 0.03 --left 0.08 --right 0.9",
        "bayesian": f"{search} --right 0.9",
        "auto": f"{search} --right auto",
    }
    networks = {
        "denoised": (clean, "--denoiser denoiser"),
        "tuned": ("tuned", "--denoiser denoiser"),
        "noisy": ("noisy", ""),
        "zoo": (zoo, ""),
    }
    files = {name: " ".join(f"{name}-{method}.tsv" for method in methods) for name in networks}
    return (
        f"train denoiser --method denoiser {train} --epochs 30 --dtype bfloat16 {SEED}",
        f"train tuned --init {clean} --denoiser denoiser {train} --epochs 8 --lr 0.02 {SEED}",
        f"train noisy --init {clean} {train} --epochs 20 --lr 0.05 {SEED}",
        *(
            f"certify {network} {name}-{method}.tsv {words} {data} --skip 80 --n 10000 {SEED} {flags}"
            for name, (network, words) in networks.items()
            for method, flags in methods.items()
        ),
        *(f"compare {files[name]} --format markdown --out {name}.md" for name in networks),
        *(
            f"compare {' '.join(f'{name}-{method}.tsv' for name in networks)} --format markdown --out {method}.md"
            for method in methods
        ),
        "plot denoised-cohen-0.5.tsv denoised-auto.tsv tuned-cohen-0.5.tsv tuned-auto.tsv noisy-cohen-0.5.tsv "
        "noisy-auto.tsv --out plot.png",
    )


PRESETS = {
    "acr": Preset(
        asks="What ACR does each way to choose sigma reach, at equal samples?",
        source="QCRS (Kung and Chen, AAAI 2024, arXiv 2302.00209), the tables of ACR",
        takes="four minutes of an H200, or three hours of one core, half of them for the grid",
        expect="ACR 0.610 Cohen, 0.879 bisection, 0.884 DDRS, 0.896 golden, 0.915 bayesian, 0.901 grid; "
        "with MACER 0.621, 0.906, 0.924, 0.926, 0.941, 0.931",
        commands=(
            *_methods(GAUSSIAN, "gaussian"),
            *_methods(MACER, "macer"),
            f"table {_files('gaussian')} {_files('macer')} --format markdown --out table.md",
            f"compare {_files('gaussian')} --format markdown --out gaussian.md",
            f"compare {_files('macer')} --format markdown --out macer.md",
            "compare gaussian-cohen.tsv gaussian-golden.tsv macer-cohen.tsv macer-golden.tsv --format markdown "
            "--out networks.md",
            f"plot {_files('gaussian')} --out gaussian.png",
            f"plot {_files('macer')} --out macer.png",
        ),
    ),
    "regret": Preset(
        asks="How near does each search come to an exhaustive one, image by image?",
        source="QCRS, its comparison with grid search",
        takes="half the time of acr; nothing where its runs are in the folder",
        expect="a regret of 0.01 (golden, bayesian) to 0.03 (bisection, DDRS), and 0.33 for Cohen",
        commands=(
            *_methods(GAUSSIAN, "gaussian"),
            f"compare {_files('gaussian', 'grid bisection golden bayesian ddrs cohen')} --format markdown "
            "--out regret.md --plot regret.png",
        ),
    ),
    "quasiconcavity": Preset(
        asks="Is R(sigma) quasiconcave?",
        source="QCRS, the assumption that its search stands on",
        takes="a minute of an H200, or 80 minutes of one core",
        expect="consistent with it, within the confidence band, for 250 and 249 of 250 images",
        commands=(
            f"curve {GAUSSIAN} gaussian-curves.tsv {DATA} --sigmas 0.06 1.2 24 --curve_n 2000",
            f"curve {MACER} macer-curves.tsv {DATA} --sigmas 0.06 1.2 24 --curve_n 2000",
            "quasiconcavity gaussian-curves.tsv macer-curves.tsv --report report.txt --out exceptions.png",
        ),
        quick="--max 5 --curve_n 50",
    ),
    "overhead": Preset(
        asks="What do a finer epsilon and more samples for each evaluation gain, and what do they cost?",
        source="QCRS, its ablations of both",
        takes="a minute of an H200, or 75 minutes of one core",
        expect="ACR 0.88 at any epsilon, 0.86 at 100 and 0.89 at 2000 samples an evaluation, and 0.59 for Cohen",
        commands=_settings(),
    ),
    "frontier": Preset(
        asks="How much does a search gain for its samples?",
        source="ours: the published bisection, and searches that use their samples better",
        takes="two minutes of an H200, or 50 minutes of one core",
        expect="ACR 0.589 Cohen, 0.879 bisection, 0.891 golden, 0.896 to 0.912 bayesian, 0.884 with half the samples",
        commands=_frontier(GAUSSIAN, f"{DATA} {BRACKET}"),
    ),
    "frontier_cifar10": Preset(
        asks="The same, for a ResNet-20 on CIFAR-10.",
        source="as above",
        takes="two minutes of an H200, or four hours of one core; the test images as ./cifar10/test/CLASS/IMAGE",
        expect="ACR 0.367 Cohen, 0.471 bisection, 0.470 golden, 0.473 to 0.479 bayesian; it ends at 0.399, where "
        "accuracy is lost",
        commands=_frontier(
            "zoo:cifar10-resnet20-sigma0.25",
            f"--dataset folder --data_dir {{base}}/cifar10 --sigma 0.25 --skip 40 --left 0.08 --right auto {SEED}",
        ),
    ),
    "collapse": Preset(
        asks="What is left of the gain where a search ends at the sigma at which accuracy under noise is lost?",
        source="ours: the published bisection and the Bayesian search, with and without --right auto",
        takes="two minutes of an H200, or two hours of one core",
        expect="accuracy is lost at 1.1; ACR 0.879 bisection and 0.902 bayesian, 0.877 and 0.901 where they end there; "
        "6 of 250 images of bayesian lie beyond and carry 6% of its gain over Cohen",
        commands=_collapse(GAUSSIAN, DATA.partition(" --sigma")[0], f"--sigma 0.25 --skip 2 {SEED}"),
    ),
    "collapse_cifar10": Preset(
        asks="The same, for a ResNet-20 on CIFAR-10.",
        source="as above",
        takes="two minutes of an H200, or five hours of one core; the test images as ./cifar10/test/CLASS/IMAGE",
        expect="accuracy is lost at 0.40; ACR 0.516 bisection and 0.591 bayesian, 0.471 and 0.475 where they end "
        "there; 47 and 48 of 250 images lie beyond, and carry 69% and 74% of the gain over Cohen",
        commands=_collapse(
            "zoo:cifar10-resnet20-sigma0.25",
            "--dataset folder --data_dir {base}/cifar10",
            f"--sigma 0.25 --skip 40 {SEED}",
        ),
    ),
    "classes": Preset(
        asks="What does a bound over all classes add to the best search, at the same samples?",
        source="Delattre et al. (AISTATS 2025, arXiv 2504.02412) for the bound; the search that aims at it is ours",
        takes="about 25 minutes of one core",
        expect="ACR 0.912, and 0.932 with the bound: +2.3% (1.3% to 3.7%); 0.930 where the finished run is given the "
        "bound",
        commands=_classes(
            GAUSSIAN,
            f"{DATA.replace('--sigma 0.25 ', '')} {BRACKET} --no-collapse",
            "--search_n 500 --evaluations 13",
        ),
    ),
    "classes_cifar10": Preset(
        asks="The same as `classes`, for a ResNet-20 on CIFAR-10.",
        source="as there",
        takes="two minutes of an H200, or four hours of one core; the test images as ./cifar10/test/CLASS/IMAGE",
        expect="ACR 0.479, and 0.487 with the bound: +1.6% (1.2% to 2.3%); 0.486 where the finished run is given it. "
        "With the published bracket 0.591, and 0.603: +2.1% (1.4% to 3.1%)",
        commands=_classes_cifar10(RESNET, f"--dataset folder --data_dir {{base}}/cifar10 --skip 40 {SEED}"),
    ),
    "cascade": Preset(
        asks="How large are the radii of one classifier for all inputs, and what does a sigma for each image add?",
        source="Jeong and Shin (NeurIPS 2023) for the cascade; its certificate, and the bound beside it, are ours and "
        "Delattre et al.'s",
        takes="about 40 minutes of one core",
        expect="ACR 1.073 Cohen at the best sigma, 1.134 at sigma 1 with the bound over classes, 1.123 cascade; "
        "1.182 and 1.205 with a sigma for each image; 1.299 and 1.327 by Cohen and the cascade after Consistency",
        commands=_cascade(RANGE, DATA.replace("--sigma 0.25 ", "--stop 400 "), CONSISTENCY),
    ),
    "cascade_cifar10": Preset(
        asks="The same as `cascade`, for ResNet-20 on CIFAR-10: one trained on a range of sigmas, two at one each.",
        source="as there",
        takes="two minutes of an H200, or four hours of one core; the test images as ./cifar10/test/CLASS/IMAGE",
        expect="ACR 0.374 Cohen at the best sigma, 0.391 with the bound over classes, 0.386 cascade; 0.446 and 0.467 "
        "with a sigma for each image",
        commands=_cascade_cifar10(f"--dataset folder --data_dir {{base}}/cifar10 --skip 40 --n 10000 {SEED}"),
    ),
    "training_fashion_mnist": Preset(
        asks="Which method of training gives the largest ACR under each rule, on a small network?",
        source="the papers of the methods, at a small scale",
        takes="four minutes of an H200, or a night of two CPU cores; the four original files of Fashion-MNIST in "
        "./data/fashion-mnist",
        expect="ACR by Cohen 1.000 gaussian, 1.042 macer, 1.105 smoothadv, 1.094 consistency, 1.098 smoothmix, 1.108 "
        "catrs; by the cascade 1.060, 1.129, 1.348, 1.287, 1.345, 1.358; with a sigma for each image 1.180, 1.236, "
        "1.628, 1.492, 1.637, 1.650",
        commands=_trained_short("0.5"),
    ),
    "denoised_cifar10": Preset(
        asks="Does a sigma for each image gain more where the network is told sigma, as it is behind a denoiser?",
        source="Salman et al. (NeurIPS 2020, arXiv 2003.01908) for denoiser and fine-tuning; the question is ours",
        takes="six minutes of an H200; CIFAR-10 as ./cifar10/train/CLASS/IMAGE and ./cifar10/test/CLASS/IMAGE, a "
        "ResNet-20 that was trained without noise as ./resnet20-12fca82f.th",
        expect="no: 25% over the best sigma behind a denoiser, 31% fine-tuned, 27% for the network trained under that "
        "noise; ACR by Cohen at 0.5 0.176 clean, 0.426 fine-tuned, 0.442 trained under noise",
        commands=_denoised("{base}/resnet20-12fca82f.th", RESNET_RANGE),
    ),
    "attack": Preset(
        asks="How far is a certified radius from the nearest other answer that an attack finds?",
        source="ours; attacks through soft votes after Salman et al. (NeurIPS 2019, arXiv 1906.04584)",
        takes="about 25 minutes of one core",
        expect="of 24 images that are certified correctly, 0 changed inside their radius and 24 beyond, at a mean of "
        "1.58 for a mean radius of 1.10; the rule that searches sigma anew changed 2 inside",
        commands=_attack(GAUSSIAN, DATA.partition(" --sigma")[0], f"--sigma 0.25 --skip 20 {SEED}"),
    ),
    "sequential": Preset(
        asks="How many samples does it take to decide whether an image is robust at r, or to know its radius?",
        source="Voracek (NeurIPS 2024) and Horvath et al. (ICLR 2022), whose schemes are shown too",
        takes="a minute; computed exactly, without a network",
        expect="about a thousand samples where the answer is no closer than 0.2 sigma, for 100 000",
        commands=("sequential --format markdown --out table.md",),
    ),
    "cifar10": Preset(
        asks="The published runs on CIFAR-10.",
        source="the program of QCRS: ResNet-110 of Cohen et al. in ./models, MACER's in ./weights, CIFAR-10 in ./data",
        takes="a GPU or a TPU: 2.2 billion samples, which would be about 7 weeks of two CPU cores; not run here",
        expect="ACR 0.6565 at sigma 0.50 (the published log, bisection)",
        commands=(
            _published(
                "models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar",
                "noise_0.25.tsv",
                "--dataset cifar10 --sigma 0.25 --left 0.08 --right 0.9 --epsilon 0.03 --epsilon_step 0.4 --skip 1",
            ),
            _published(
                "models/cifar10/resnet110/noise_0.50/checkpoint.pth.tar",
                "noise_0.50.tsv",
                "--dataset cifar10 --sigma 0.50 --left 0.12 --right 1.7 --epsilon 0.03 --epsilon_step 0.2 --skip 1",
            ),
            _published(
                "weights/0.50.pth",
                "macer_0.50.tsv",
                "--dataset cifar10 --sigma 0.50 --left 0.12 --right 1.9 --epsilon 0.03 --epsilon_step 0.2 --macer "
                "--skip 20",
            ),
            "table noise_0.25.tsv noise_0.50.tsv macer_0.50.tsv --format markdown --out table.md",
        ),
        quick=TINY,
    ),
    "training_cifar10_0.25": Preset(
        asks="Which method of training gives the largest ACR at sigma 0.25?",
        source="CAT-RS (Jeong, Kim and Shin, AAAI 2023), its table of CIFAR-10; its settings, and MACER's own",
        takes="a GPU or a TPU, days: 1190 epochs of ResNet-110, many with attacks; CIFAR-10 in ./data; not run",
        expect="ACR 0.424 Gaussian, 0.531 MACER, 0.544 SmoothAdv, 0.552 Consistency, "
        "0.553 SmoothMix, 0.562 CAT-RS (their published logs)",
        commands=_trained("0.25"),
        quick=COHEN,
    ),
    "training_cifar10_0.50": Preset(
        asks="Which method of training gives the largest ACR at sigma 0.50?",
        source="CAT-RS (Jeong, Kim and Shin, AAAI 2023), its table of CIFAR-10; its settings, and MACER's own",
        takes="a GPU or a TPU, days: 1190 epochs of ResNet-110, many with attacks; CIFAR-10 in ./data; not run",
        expect="ACR 0.525 Gaussian, 0.691 MACER, 0.684 SmoothAdv, 0.720 Consistency, "
        "0.736 SmoothMix, 0.757 CAT-RS (their published logs)",
        commands=_trained("0.50"),
        quick=COHEN,
    ),
    "training_cifar10_1.00": Preset(
        asks="Which method of training gives the largest ACR at sigma 1.00?",
        source="CAT-RS (Jeong, Kim and Shin, AAAI 2023), its table of CIFAR-10; its settings, and MACER's own",
        takes="a GPU or a TPU, days: 1190 epochs of ResNet-110, many with attacks; CIFAR-10 in ./data; not run",
        expect="ACR 0.511 Gaussian, 0.744 MACER, 0.790 SmoothAdv, 0.756 Consistency, "
        "0.815 CAT-RS (their published logs)",
        commands=_trained("1.00"),
        quick=COHEN,
    ),
    "imagenet": Preset(
        asks="The published runs on ImageNet.",
        source="the program of QCRS: ResNet-50 of Cohen et al. below ./models, the validation images below ./data",
        takes="a GPU or a TPU: 53 million samples of 224 x 224 pixels, weeks of two CPU cores; not run here",
        expect="at sigma 0.50 Cohen's ACR is 0.7325 over 500 images; QCRS's is larger",
        commands=(
            _published(
                "models/imagenet/resnet50/noise_0.25/checkpoint.pth.tar",
                "noise_0.25.tsv",
                "--dataset imagenet --skip 200 --sigma 0.25 --left 0.15 --right 0.40 --epsilon 0.01 --epsilon_step 0.8 "
                "--batch 1000",
            ),
            _published(
                "models/imagenet/resnet50/noise_0.50/checkpoint.pth.tar",
                "noise_0.50.tsv",
                "--dataset imagenet --skip 200 --sigma 0.50 --left 0.40 --right 0.60 --epsilon 0.01 --epsilon_step 0.4 "
                "--batch 1000",
            ),
            "table noise_0.25.tsv noise_0.50.tsv --format markdown --out table.md",
        ),
        quick=TINY,
    ),
}


def describe(name: str) -> str:
    """A description of an experiment, for its user, before it runs."""
    preset = PRESETS[name]
    lines = [f"asks: {preset.asks}", f"source: {preset.source}", f"takes: {preset.takes}", f"expect: {preset.expect}"]
    wrapped = [textwrap.fill(line, 100, initial_indent="  ", subsequent_indent="    ") for line in lines]
    return "\n".join([name, *wrapped])

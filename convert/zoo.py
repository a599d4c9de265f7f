"""The zoo: classifiers and denoisers trained with `qcrs-jax train` that come with the package, opened as `zoo:NAME`.

`load_classifier("zoo:NAME")` and `load_denoiser("zoo:NAME")` open one. `qcrs-jax zoo` lists them; the log of a
classifier's training lies beside its weights.
"""

import json
from pathlib import Path

from qcrs_jax.errors import UserError

FOLDER = Path(__file__).parent / "weights"
PREFIX = "zoo:"


def entries() -> dict[str, dict]:
    """The classifiers: name -> arch, dataset, method, sigma, clean_accuracy, noisy_accuracy, command, file.

    A network that was trained on a range of levels also has sigma_range, its two ends; sigma is then that of the tests.
    """
    return {name: entry for name, entry in _content().items() if "clean_accuracy" in entry}


def denoisers() -> dict[str, dict]:
    """The denoisers: name -> arch, dataset, method, sigma_range, command, file, and squared_errors.

    squared_errors: noise level -> squared error of a pixel of the test images, on average.
    """
    return {name: entry for name, entry in _content().items() if "squared_errors" in entry}


def _content():
    return json.loads((FOLDER / "zoo.json").read_text())


def described(entry: dict) -> str:
    """Two lines that describe an entry and its accuracy, or the errors of a denoiser."""
    levels = " to ".join(f"{level:g}" for level in entry.get("sigma_range", (entry.get("sigma"),)))
    if "squared_errors" in entry:
        errors = ", ".join(f"{error:g} at sigma {sigma}" for sigma, error in entry["squared_errors"].items())
        return f"  denoiser for {entry['dataset']}, trained at sigma {levels}\n  squared error of a pixel {errors}"
    noise = f"noise of {entry['sigma']:g}" if "sigma_range" in entry else "that noise"
    return (
        f"  {entry['arch']} on {entry['dataset']}, trained by {entry['method']} at sigma {levels}\n"
        f"  test accuracy {entry['clean_accuracy']:.3f} clean, {entry['noisy_accuracy']:.3f} under {noise}"
    )


def resolve(path: str | Path) -> Path:
    """The file of `zoo:NAME`. Any other path is returned as it is.

    Raises:
        UserError: the zoo has no such name.
    """
    name = str(path)
    if not name.startswith(PREFIX):
        return Path(path)
    zoo = _content()
    if name.removeprefix(PREFIX) not in zoo:
        raise UserError(f"{name}: not in the zoo, which holds {', '.join(PREFIX + known for known in zoo)}")
    return FOLDER / zoo[name.removeprefix(PREFIX)]["file"]

"""The zoo: classifiers trained with `qcrs-jax train` that come with the package, opened as `zoo:NAME`.

`load_classifier("zoo:NAME")` opens one. `qcrs-jax zoo` lists them; the log of its training lies beside its weights.
"""

import json
from pathlib import Path

from qcrs_jax.errors import UserError

FOLDER = Path(__file__).parent / "weights"
PREFIX = "zoo:"


def entries() -> dict[str, dict]:
    """The content of the zoo: name -> arch, dataset, method, sigma, clean_accuracy, noisy_accuracy, command, file.

    A network that was trained on a range of levels also has sigma_range, its two ends; sigma is then that of the tests.
    """
    return json.loads((FOLDER / "zoo.json").read_text())


def described(entry: dict) -> str:
    """Two lines that describe an entry and its accuracy."""
    levels = " to ".join(f"{level:g}" for level in entry.get("sigma_range", (entry["sigma"],)))
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
    zoo = entries()
    if name.removeprefix(PREFIX) not in zoo:
        raise UserError(f"{name}: not in the zoo, which holds {', '.join(PREFIX + known for known in zoo)}")
    return FOLDER / zoo[name.removeprefix(PREFIX)]["file"]

"""Our sampler in a process of its own. So several versions of JAX can be timed in one run, each in its interpreter.

`python -m qcrs_jax.experiments.bench.jax_sampler CHECKPOINT` prints a line of JSON: the version of JAX, the devices,
the seconds from the file to the first certificate, and the number of programs compiled for that. It then answers each
line "BATCH SECONDS" with the samples a second.
"""

import json
import subprocess
import sys
from pathlib import Path

from qcrs_jax.errors import UserError


class JaxSampler:
    """The sampler under the JAX of the interpreter `python`, on all its devices. Close it at the end.

    Attributes:
        jax, devices: the version, and the devices in words.
        first, compilations: seconds from the file to the first certificate, and number of programs compiled for it.
    """

    def __init__(self, python: str | Path, checkpoint: Path):
        command = [str(python), "-m", __name__, str(checkpoint)]
        self.python = python
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise UserError(f"--python {python}: {error.strerror}") from error
        try:
            facts = json.loads(self._answer())
        except BaseException:
            self.close()
            raise
        self.jax, self.devices = facts["jax"], facts["devices"]
        self.first, self.compilations = facts["first"], facts["compilations"]

    def rate(self, batch: int, seconds: float) -> float:
        """Samples a second with `batch` copies on each device, measured for about `seconds`."""
        self._process.stdin.write(f"{batch} {seconds}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"--python {self.python}: the process ended; JAX and qcrs_jax must be installed there")
        return line


def main(checkpoint: str) -> None:
    """Answers on the standard output; see the top of the file."""
    import jax

    from qcrs_jax.sampling.devices import choose_devices

    from .rate import rate

    devices = choose_devices()
    sample, first, compilations = _sampler(checkpoint, devices)
    words = f"{len(devices)} x {devices[0].device_kind}"
    facts = {"jax": jax.__version__, "devices": words, "first": first, "compilations": compilations}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        batch, seconds = line.split()
        print(rate(sample, int(batch), float(seconds)), flush=True)


def _sampler(checkpoint, devices):
    """Our sampler, the seconds to its first certificate, and the number of programs compiled for it."""
    import time

    import jax
    import numpy as np

    from qcrs_jax import GoldenSection, certify, load_classifier

    image = np.random.default_rng(0).uniform(size=(32, 32, 3)).astype(np.float32)
    key, options = jax.random.key(0), {"n": 100, "devices": devices, "search": GoldenSection(0.08, 0.9)}
    # Programs that serve every classifier, such as the folding of keys, do not count.
    certify(lambda x: x.mean((1, 2)), image, 0.25, key=key, **options)
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if name.endswith("backend_compile_duration") else None
    )
    started = time.perf_counter()
    classify = load_classifier(Path(checkpoint)).classify
    before = len(compilations)
    certify(classify, image, 0.25, key=key, **options)
    first = time.perf_counter() - started

    def sample(batch, n):
        return certify(classify, image, 0.25, key=key, n0=1, n=max(n, 10), batch_size=batch, devices=devices).counts

    return sample, first, len(compilations) - before


if __name__ == "__main__":
    main(sys.argv[1])

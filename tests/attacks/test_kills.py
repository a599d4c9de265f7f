"""Processes killed while they write. Whole runs are killed in tests/commands/test_interrupted.py."""

import subprocess
import sys

import pytest
from places import HELPERS


@pytest.mark.parametrize(("what", "kills"), [("writer", 150), ("files", 100), ("classifier", 8)])
def test_nothing_is_lost_doubled_or_torn(what, kills, counted):
    # In a process of its own, without the threads of JAX, which must not be forked.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", HELPERS / "kill_runs.py", what, str(kills)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    counted(f"kills: {done.stdout.strip()}")
    assert done.stdout.startswith(f"{2 * kills if what == 'files' else kills} ")

"""Runs of several hosts, and runs that are killed."""

import os
import signal
import socket
import subprocess
import time

import pytest
from kill_runs import cut, kill_runs, lines
from program import PROGRAM, SMALL, qcrs_jax

from qcrs_jax.results.records import read_run


def start_hosts(folder, flags, slurm=False):
    """Two processes that share a run, with pipes for what they say; with `slurm` told of each other as Slurm does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [PROGRAM, "certify", "lenet.pth", "hosts.tsv", *map(str, flags), "--distributed"]
    pipes = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if not slurm:
        words += ["--coordinator", address]
        return [subprocess.Popen([*words, "--process", f"{i}/2"], **pipes) for i in (1, 2)]
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    own = [{"SLURM_PROCID": task, "SLURM_LOCALID": task, "CUDA_VISIBLE_DEVICES": task} for task in "01"]
    tasks = [{**os.environ, **job, **variables} for variables in own]  # each task sees a card of its own, if any
    return [subprocess.Popen(words, env=task, **pipes) for task in tasks]


@pytest.mark.slow
def test_a_killed_run_ends_as_an_unbroken_one(here):
    words = [PROGRAM, "certify", "lenet.pth", *map(str, SMALL), "--method", "cohen", "--N", "4000"]
    kill_runs(3, words, here)
    path = here / "killed.tsv"
    cut(path, path.read_text()[:-9])  # as if it had died within a write
    again = subprocess.run([*words, "killed.tsv"], cwd=here, capture_output=True, text=True)
    assert "killed.tsv: 5 of 6 images are done" in again.stdout
    assert lines(path) == lines(here / "whole.tsv")


@pytest.mark.slow
def test_a_machine_that_is_taken_away_leaves_its_results_and_says_how_to_go_on(here):
    words = [PROGRAM, "certify", "lenet.pth", "r.tsv", *map(str, SMALL), "--method", "cohen", "--N", "30000"]
    with subprocess.Popen(words, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (here / "r.tsv").exists() or (here / "r.tsv").read_bytes().count(b"\n") < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        message = process.communicate()[1]
    assert process.returncode == 143 and 1 <= len(read_run(here / "r.tsv").records) < 6, message
    assert (
        "qcrs-jax: stopped by SIGTERM\nThe results so far are kept in r.tsv; the same command continues there"
        in message
    )
    assert "Traceback" not in message


@pytest.mark.parametrize("slurm", [False, True])
@pytest.mark.slow
def test_two_hosts_share_a_run(certified, slurm):
    for file in certified.glob("hosts.tsv*"):
        file.unlink()
    devices = [] if slurm else ["--devices", 2]
    hosts = start_hosts(certified, [*SMALL, "--search", "golden", "--max", 3, *devices], slurm)
    first, second = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], first[1] + second[1]
    assert lines(certified / "hosts.tsv") == lines(certified / "golden.tsv")
    assert "(hosts.tsv)" in first[0] and "images" not in second[0]
    assert slurm or read_run(certified / "hosts.tsv").sidecar["provenance"]["devices"].startswith("4 x cpu")


@pytest.mark.slow
def test_a_host_that_dies_ends_the_run_of_the_others(here):
    flags, path = [*SMALL, "--method", "cohen", "--N", 20000, "--devices", 1], here / "hosts.tsv"
    first, second = start_hosts(here, flags)
    while not path.exists() or path.read_bytes().count(b"\n") < 2:
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    second.kill()
    message = first.communicate(timeout=60)[1]
    assert first.returncode == 75 and "the hosts lost each other; start all of them again" in message
    assert "The results so far are kept in hosts.tsv" in message and "Traceback" not in message
    assert 1 <= len(read_run(path).records) < 6
    second.communicate()
    qcrs_jax("certify", "lenet.pth", "hosts.tsv", *flags, cwd=here)
    qcrs_jax("certify", "lenet.pth", "whole.tsv", *flags, cwd=here)
    assert lines(path) == lines(here / "whole.tsv")

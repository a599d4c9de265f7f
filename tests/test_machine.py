"""CPUs, memory and cards that a container or a job leaves to this process, by files of control groups and variables."""

import os

import jax
import pytest

from qcrs_jax import machine
from qcrs_jax.data.limits import default_memory_limit
from qcrs_jax.errors import UserError
from qcrs_jax.experiments.run import batch_size, inputs
from qcrs_jax.machine import cpu_quota, own_cards, usable_cpus, usable_memory
from qcrs_jax.sampling import devices as parallel

GIB = 2**30


@pytest.fixture(autouse=True)
def large_machine(monkeypatch):
    """64 cores and 64 GiB."""
    monkeypatch.setattr(machine, "cores", lambda: 64)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2**24, "SC_PAGE_SIZE": 4096}.get)


def system(root, groups, **files):
    """The files of a system below `root`: /proc/self/cgroup with the lines `groups`, others of /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


V2 = "0::/\n"
V1 = "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/system.slice\n"


@pytest.mark.parametrize(
    ("groups", "files", "quota", "cpus"),
    [
        (V2, {}, None, 64),
        (V2, {"cpu_DOT_max": "max 100000\n"}, None, 64),
        (V2, {"cpu_DOT_max": "150000 100000\n"}, 1.5, 1),
        (V2, {"cpu_DOT_max": "50000 100000\n"}, 0.5, 1),
        (V2, {"cpu_DOT_max": "800000 100000\n"}, 8, 8),
        (V2, {"cpu_DOT_max": "12800000 100000\n"}, 128, 64),
        (V2, {"cpu_DOT_max": "damaged\n"}, None, 64),
        (V2, {"cpu_DOT_max": "150000\n"}, None, 64),
        (V2, {"cpu_DOT_max": "150000 0\n"}, None, 64),
        # A job's own group has no limit, and one above it has.
        ("0::/slurm/job_1/step_0\n", {"slurm__job_1__cpu_DOT_max": "400000 100000"}, 4, 4),
        ("0::/a/b\n", {"a__cpu_DOT_max": "400000 100000", "a__b__cpu_DOT_max": "300000 100000"}, 3, 3),
        ("0::/../../outside\n", {"cpu_DOT_max": "200000 100000"}, 2, 2),
        # Version 1, in a container that sees its own group as the root, and in the host's tree.
        (V1, {"cpu__cpu_DOT_cfs_quota_us": "250000", "cpu__cpu_DOT_cfs_period_us": "100000"}, 2.5, 2),
        (V1, {"cpu,cpuacct__cpu_DOT_cfs_quota_us": "-1", "cpu,cpuacct__cpu_DOT_cfs_period_us": "100000"}, None, 64),
        (
            V1,
            {
                "cpu,cpuacct__docker__abc__cpu_DOT_cfs_quota_us": "100000",
                "cpu,cpuacct__docker__abc__cpu_DOT_cfs_period_us": "50000",
            },
            2,
            2,
        ),
        # Both versions mounted: the second below `unified`.
        (V1, {"unified__system.slice__cpu_DOT_max": "700000 100000"}, 7, 7),
    ],
)
def test_a_quota_of_cpus(tmp_path, groups, files, quota, cpus):
    root = system(tmp_path, groups, **files)
    assert cpu_quota(root) == quota and usable_cpus(root) == cpus


def test_without_control_groups_the_cores_and_the_memory_are_the_machine_s(tmp_path):
    assert cpu_quota(tmp_path) is None and usable_cpus(tmp_path) == 64 and usable_memory(tmp_path) == 64 * GIB


@pytest.mark.parametrize(
    ("groups", "files", "memory"),
    [
        (V2, {"memory_DOT_max": "max\n"}, 64 * GIB),
        (V2, {"memory_DOT_max": f"{2 * GIB}\n"}, 2 * GIB),
        (V2, {"memory_DOT_max": f"{200 * GIB}\n"}, 64 * GIB),
        ("0::/job\n", {"memory_DOT_max": f"{GIB}\n", "job__memory_DOT_max": "max\n"}, GIB),
        (V1, {"memory__memory_DOT_limit_in_bytes": "9223372036854771712\n"}, 64 * GIB),
        (V1, {"memory__docker__abc__memory_DOT_limit_in_bytes": f"{3 * GIB}\n"}, 3 * GIB),
        (V1, {"memory__memory_DOT_limit_in_bytes": f"{6 * GIB}\n"}, 6 * GIB),
    ],
)
def test_a_limit_of_memory_is_the_memory_that_limits_are_shares_of(tmp_path, monkeypatch, groups, files, memory):
    root = system(tmp_path, groups, **files)
    assert usable_memory(root) == memory
    monkeypatch.setattr(machine, "ROOT", root)
    assert default_memory_limit() == min(4, memory / GIB / 2)


def test_batch_auto_on_a_cpu_tries_sizes_that_fit_the_container_s_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "ROOT", system(tmp_path, V2, memory_DOT_max=f"{GIB}"))
    monkeypatch.setattr(batch_size, "_bytes_per_image", lambda classify, shape: GIB // 64)
    monkeypatch.setattr(batch_size, "_rate", lambda classify, shape, devices, size: float(size))
    assert batch_size.fastest_batch(None, (4, 4, 3), jax.devices()[:1]) == 32
    assert "32 at 32\n" in capsys.readouterr().out


def test_batch_auto_on_accelerators_tries_up_to_16384(monkeypatch):
    class Card:
        platform = "gpu"

    monkeypatch.setattr(batch_size, "_rate", lambda classify, shape, devices, size: float(size))
    assert batch_size.fastest_batch(None, (4, 4, 3), [Card()]) == 16384


def test_a_quota_gives_fewer_devices_and_threads_and_is_reported(tmp_path, monkeypatch, capsys):
    asked = {}
    root = system(tmp_path, V2, cpu_DOT_max="150000 100000\n")
    monkeypatch.setattr(machine, "ROOT", root)
    for module in (parallel, inputs):
        monkeypatch.setattr(module, "cores", lambda: 64)
    monkeypatch.setattr(jax.config, "update", asked.__setitem__)
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1])
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert len(inputs.open_devices()) == 1
    assert asked == {"jax_num_cpu_devices": 1} and os.environ["NPROC"] == "1"
    said = capsys.readouterr().out
    assert said == "this container may use 1.5 CPUs' time on 64 cores: 1 CPU device instead of 64\n"
    inputs.open_devices(1)  # asked for: nothing to tell
    monkeypatch.setattr(machine, "ROOT", tmp_path / "none")
    for module in (parallel, inputs):
        monkeypatch.setattr(module, "usable_cpus", lambda: 64)
    inputs.open_devices()
    assert capsys.readouterr().out == "" and asked == {"jax_num_cpu_devices": 64}


@pytest.mark.parametrize(
    ("variables", "cards"),
    [
        ("SLURM_LOCALID=3", None),  # nothing known of cards: JAX's choice
        ("CUDA_VISIBLE_DEVICES=0 SLURM_LOCALID=3", [0]),  # one card, the task's own
        ("CUDA_VISIBLE_DEVICES=5 SLURM_LOCALID=5", [0]),
        ("CUDA_VISIBLE_DEVICES=MIG-8a5f SLURM_LOCALID=1", [0]),
        ("ROCR_VISIBLE_DEVICES=2 SLURM_LOCALID=2", [0]),
        ("CUDA_VISIBLE_DEVICES=0 OMPI_COMM_WORLD_LOCAL_RANK=2", [0]),
        ("CUDA_VISIBLE_DEVICES=0,1,2,3 SLURM_LOCALID=2", [2]),  # all of the host's
        ("CUDA_VISIBLE_DEVICES=0,1,2,3", None),  # no launcher: all of them
        ("CUDA_VISIBLE_DEVICES=4,5 SLURM_LOCALID=2 SLURM_GPUS_PER_TASK=2", [0, 1]),
        ("CUDA_VISIBLE_DEVICES=0,1,2,3 SLURM_LOCALID=1 SLURM_GPUS_PER_TASK=a100:2", [2, 3]),  # --gpu-bind=none
        ("CUDA_VISIBLE_DEVICES=0,1 SLURM_LOCALID=1 SLURM_TRES_PER_TASK=cpu:4,gres/gpu:2", [0, 1]),
        ("CUDA_VISIBLE_DEVICES=0,1 SLURM_LOCALID=1 SLURM_TRES_PER_TASK=cpu:4", [1]),
        ("CUDA_VISIBLE_DEVICES= SLURM_LOCALID=1", None),
        ("CUDA_VISIBLE_DEVICES=-1 SLURM_LOCALID=1", None),
        ("CUDA_VISIBLE_DEVICES=0 SLURM_LOCALID=3 JAX_LOCAL_DEVICE_IDS=0", None),  # said to JAX itself
    ],
)
def test_cards_of_a_process(variables, cards):
    assert own_cards(dict(variable.split("=") for variable in variables.split())) == cards


def test_more_processes_than_cards_get_one_clear_line():
    for variables in (
        {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_LOCALID": "2"},
        {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_LOCALID": "1", "SLURM_GPUS_PER_TASK": "2"},
    ):
        with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=0,1.*--gpus-per-task=1") as error:
            own_cards(variables)
        assert "\n" not in str(error.value)


def test_a_task_that_sees_one_card_sets_the_card_of_jax(monkeypatch):
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: told.append(args))
    monkeypatch.setenv("SLURM_LOCALID", "3")
    monkeypatch.setattr(parallel, "own_cards", lambda: own_cards({"CUDA_VISIBLE_DEVICES": "3", "SLURM_LOCALID": "3"}))
    parallel.join_hosts()
    parallel.join_hosts("host:1", (2, 4))
    assert told == [(None, None, None, [0]), ("host:1", 4, 1, [0])]


def test_a_process_without_a_device_of_its_own_gets_one_clear_line(monkeypatch):
    def fail(count):
        raise RuntimeError(
            "Unable to initialize backend 'cuda': INTERNAL: no supported devices found for platform CUDA"
        )

    monkeypatch.setattr(inputs, "choose_devices", fail)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(UserError, match="could not open a device .CUDA_VISIBLE_DEVICES is 1.*no supported devices"):
        inputs.open_devices(None, distributed=True)
    with pytest.raises(RuntimeError, match="Unable") as error:
        inputs.open_devices(None)
    assert not isinstance(error.value, UserError)

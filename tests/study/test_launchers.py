"""Studies whose programs train in other processes: the same bits, whatever dies in between."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from mmjax.config import ConfigError
from mmjax.study import run_study as studies
from mmjax.study import study_directory as directories
from mmjax.study.launchers import make_launcher
from mmjax.study.launchers.handles import FutureHandle
from mmjax.study.launchers.jobs import WorkerSetup, read_worker_setup, write_job
from mmjax.study.launchers.local import divide_gpus, list_visible_gpus
from tests.study import small_study
from tests.study.test_run_study import small

REPOSITORY = Path(__file__).parents[2]
COMMAND = "from mmjax.cli import script; script()"
STUDY = f"{small_study.__file__}:TWO_PROGRAMS"
OPTIONS = ("--devices", "1", "--set", "epochs=60")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("in-process", {"workers": 2}, "--workers needs a launcher"),
        ("local", {"ray_address": "auto"}, "--ray-address needs --launcher ray"),
        ("local", {"options": {"num_gpus": 1}}, "the launcher local has no such options"),
        ("cloud", {}, "the launcher 'cloud' is unknown"),
    ],
)
def test_options_that_do_not_apply_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        make_launcher(name, **options)


def test_every_gpu_goes_to_one_worker_and_every_worker_gets_one(tmp_path):
    for gpus in range(1, 9):
        names = [str(i) for i in range(gpus)]
        for workers in range(2, 9):
            shares = [share.split(",") for share in divide_gpus(names, workers)]
            assert len(shares) == workers and all(shares)
            given = sorted(name for share in shares for name in share)
            assert sorted(set(given)) == names
            assert len(given) == max(gpus, workers)
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert list_visible_gpus({}, tmp_path) == ["0", "2", "10"]
    assert list_visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []


def test_a_worker_reads_the_settings_that_were_written(tmp_path):
    plan = small()
    every = studies.TEN_MINUTES
    setup = WorkerSetup(
        tmp_path, "/", STUDY, small_study.__name__, "{}", 0, 2, None, every, tmp_path / "c", True
    )
    unit = plan.unit(tmp_path / "arms" / "a", plan.base)
    path = write_job(setup, "a", [unit], test=True, module=small_study)
    assert read_worker_setup(path) == setup._replace(directory=tmp_path.resolve())


class DyingLauncher:
    """Starts nothing: every job has died at once."""

    def __init__(self):
        self.submitted = []

    def submit(self, jobs):
        self.submitted += jobs
        future = Future()
        future.set_result(-signal.SIGKILL)
        return [FutureHandle(future) for _ in jobs]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_process_that_dies_is_started_three_times_and_then_reported(tmp_path, capsys):
    plan, launcher = small(), DyingLauncher()
    directories.start_study(plan, tmp_path, None, {})
    failed = studies.run_study(plan, tmp_path, launcher=launcher, target=STUDY)
    assert failed == list(plan.arms) == ["learning_rate=0.01", "learning_rate=0.03"]
    assert len(launcher.submitted) == 3 and len(set(launcher.submitted)) == 1  # one program
    for name in plan.arms:
        text = (tmp_path / "arms" / name / "error.txt").read_text()
        assert "The process of learning_rate=0.01 died (SIGKILL) 3 times" in text
    assert capsys.readouterr().out.count("died (SIGKILL); it is started again.") == 2


def start(root, *arguments, python=sys.executable, **settings):
    """Starts `mmjax ablate` on the small study, in a process of its own."""
    given = {"JAX_PLATFORMS": "cpu", "JAXTYPING_DISABLE": "1", "MMJAX_CACHE": str(root / "cache")}
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    with (root / "out.txt").open("a") as output:
        return subprocess.Popen(
            [python, "-c", COMMAND, "ablate", STUDY, *OPTIONS, *arguments],
            env=os.environ | given | {"PYTHONPATH": path} | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The study, trained in one process."""
    root = tmp_path_factory.mktemp("whole")
    assert start(root, "--workdir", str(root / "study")).wait(600) == 0
    return root / "study"


def check_same_bits(first, second):
    """Results and logs are the same; there are no errors, and no files of unfinished work."""
    homes = sorted(path.name for path in (first / "arms").iterdir())
    assert homes == sorted(path.name for path in (second / "arms").iterdir())
    for name in homes:
        one, other = first / "arms" / name, second / "arms" / name
        results = [json.loads((d / "result.json").read_text())["seeds"] for d in (one, other)]
        assert results[0] == results[1]
        (log,) = one.glob("metrics-seed*.jsonl")
        assert log.read_bytes() == (other / log.name).read_bytes()
        assert not (other / "error.txt").exists()
    assert not (second / "programs").exists() and not list(second.glob("jobs/*.json"))


def find_workers(directory):
    """Returns the processes that train jobs of a study."""
    workers = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if b"mmjax.cli.job_worker" in words and str(directory).encode() in b" ".join(words):
            workers.append(int(path.parent.name))
    return workers


def wait_until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def count_lines(directory):
    return sum(log.read_text().count("\n") for log in directory.glob("arms/*/metrics-*.jsonl"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_killed_workers_and_coordinators_change_no_bit(whole, tmp_path):
    """A worker dies, then its coordinator; the study is resumed in one process."""
    study = tmp_path / "study"
    arguments = ("--workdir", str(study), "--checkpoint-every", "8", "--resume")
    local = ("--launcher", "local", "--workers", "2")
    process = start(tmp_path, *arguments, *local)
    wait_until(lambda: count_lines(study) > 20)
    os.kill(find_workers(study)[0], signal.SIGKILL)
    wait_until(lambda: "died (SIGKILL); it is started again" in (tmp_path / "out.txt").read_text())
    seen = count_lines(study)
    wait_until(lambda: count_lines(study) > seen + 20)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    wait_until(lambda: not find_workers(study))  # they notice, save a checkpoint and end
    assert not all((home / "result.json").exists() for home in (study / "arms").iterdir())
    assert start(tmp_path, *arguments).wait(600) == 0
    check_same_bits(whole, study)


@pytest.mark.reference
def test_a_study_that_ray_begins_and_is_interrupted_is_ended_by_another_launcher(whole, tmp_path):
    pytest.importorskip("ray")
    study = tmp_path / "study"
    arguments = ("--workdir", str(study), "--checkpoint-every", "8", "--resume")
    process = start(tmp_path, *arguments, "--launcher", "ray", "--workers", "2")
    wait_until(lambda: count_lines(study) > 20)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM
    assert not find_workers(study)
    assert not all((home / "result.json").exists() for home in (study / "arms").iterdir())
    assert start(tmp_path, *arguments, "--launcher", "local", "--workers", "2").wait(600) == 0
    check_same_bits(whole, study)


SBATCH = """#!/bin/sh
cp "$1" "{record}"
for i in $(seq 0 1); do
  SLURM_JOB_ID=$((70 + i)) SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i SLURM_LOCALID=0 \
  SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_JOB_NODELIST=here sh "$1" > /dev/null 2>&1 &
done
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do case "$1" in --output|--error) shift 2 ;; *) shift ;; esac; done
exec "$@"
"""


@pytest.mark.reference
def test_slurm_gets_one_array_and_ends_with_the_same_bits(whole, tmp_path):
    """Commands that record the script of `sbatch` and run its tasks stand in for SLURM."""
    pytest.importorskip("submitit")
    commands, study = tmp_path / "bin", tmp_path / "study"
    commands.mkdir()
    record = tmp_path / "recorded.sh"
    answers = {"sacct": "#!/bin/sh\n", "scancel": "#!/bin/sh\n"}
    answers |= {"sbatch": SBATCH.replace("{record}", str(record)), "srun": SRUN}
    for name, text in answers.items():
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    needs = ("slurm_partition=gpu", "timeout_min=90", "slurm_gpus_per_node=1")
    options = [word for need in needs for word in ("--worker", need)]
    options += ["--launcher", "slurm", "--workers", "1", "--workdir", str(study)]
    path = f"{commands}:{os.environ['PATH']}"
    assert start(tmp_path, *options, PATH=path).wait(600) == 0, (tmp_path / "out.txt").read_text()
    script = record.read_text()
    for line in (
        "#SBATCH --array=0-1%1",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --gpus-per-node=1",
    ):
        assert line in script.splitlines()
    check_same_bits(whole, study)
    assert not list((study / "slurm").glob("*.pkl"))

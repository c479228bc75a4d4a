"""Kills commands at random moments, resumes them, and compares the results with an unkilled run.

    python experiments/faults/kills.py --kills 100 --seed 0

Three commands run on tiny inputs in processes of their own: `mmjax run`, `mmjax ablate` and
`mmjax data prepare`. A moment is drawn in a phase (start, compilation, steps, writing of a
checkpoint, validation, report), and a signal (KILL, TERM, INT). After one to three of them the
command is resumed to its end; its logs, digests of parameters, metrics and tables must be, byte for
byte, those of the uninterrupted command, and its output must contain no traceback. The draws depend
on the seed only; the step that a signal hits also depends on the speed of the machine. Expected: no
command differs and none ends wrong; 100 kills take about 15 minutes on two quiet cores.
"""

import argparse
import gzip
import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

EXPERIMENT = """
import numpy as np
import optax
from mmjax import Experiment, Model, auto_config
from mmjax.study import Study
from mmjax.balance import uncertainty
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.sharing import HardSharing
from mmjax.types import Batch


def batch(examples, seed):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, examples)
    present = np.ones(examples, bool)
    size = (kind + rng.normal(size=examples)).astype(np.float32)
    return Batch(
        {"vector": (rng.normal(size=(examples, 5)) + np.eye(5)[kind]).astype(np.float32)},
        {"vector": present},
        {},
        {"kind": kind.astype(np.int32), "size": size},
        {"kind": present, "size": rng.random(examples) < 0.5},
    )


def random_vectors():
    return Dataset(
        "random_vectors",
        {"vector": Modality((5,))},
        {"kind": Task("classification", tuple("abcd")), "size": Task("regression")},
        {name: Arrays(batch(64, i)) for i, name in enumerate(("train", "validation", "test"))},
    )


@auto_config
def experiment():
    return Experiment(
        data=random_vectors(),
        model=Model(
            encoders={"vector": MLPEncoder(features=(8,))},
            fusion=Concat(),
            sharing=HardSharing(features=(8,), dropout=0.3),
            heads={"kind": Classification(4), "size": Regression(mean=1.5, scale=1.5)},
        ),
        balancer=uncertainty(optax.adam(1e-2)),
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, decay_steps=192)),
        epochs=24,
        batch_size=8,
        eval_batch_size=64,
        eval_every=2,
        patience=11,
        steps_per_dispatch=2,
        monitor="kind/accuracy",
    )


STUDY = Study(
    base=experiment,
    axes={"balancer": ["equal()", "uncertainty(optax.adam(1e-2))"]},
    seeds=(0, 1),
)
"""
TIMEOUT = 300.0  # seconds until a command that was signalled, or that resumes, counts as hanging
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Job(NamedTuple):
    """A command on tiny inputs.

    Attributes:
      name: name of the command.
      arguments: directory -> arguments of `mmjax` that start or resume the command.
      outcome: directory -> {file: content} that must not differ.
      phases: phases in which it can be killed.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    outcome: Callable[[Path], dict[str, str]]
    phases: tuple[str, ...]


class Attempt(NamedTuple):
    """One start of a command.

    Attributes:
      code: its exit code; None if it hung.
      output: what it printed.
      killed: whether the command was still running when the signal was sent.
    """

    code: int | None
    output: str
    killed: bool


class Times(NamedTuple):
    """The duration of the phases of an uninterrupted command, in seconds."""

    start: float
    compilation: float
    steps: float
    report: float
    lines: int


def make_jobs(root: Path) -> list[Job]:
    """Writes the inputs of all commands."""
    (root / "tiny.py").write_text(EXPERIMENT)
    write_originals(root / "originals" / "mnist")
    file, often = str(root / "tiny.py"), ["--checkpoint-every", "5", "--devices", "1", "--resume"]
    pairs = "multi_mnist(train=1500, validation=300, test=300)"

    def run(directory: Path) -> list[str]:
        return ["run", file, "--seeds", "0", "1", *often, "--workdir", str(directory)]

    def ablate(directory: Path) -> list[str]:
        return ["ablate", file, *often, "--workdir", str(directory)]

    def prepare(directory: Path) -> list[str]:
        folders = ["--manual-dir", str(root / "originals"), "--data-dir", str(directory)]
        return ["data", "prepare", pairs, *folders]

    training = ("start", "compilation", "steps", "checkpoint", "validation", "report")
    return [
        Job("run", run, read_training, training),
        Job("ablate", ablate, read_training, training),
        Job("prepare", prepare, read_prepared, ("start", "anywhere")),
    ]


def write_originals(folder: Path) -> None:
    """Writes random images and labels like the files of MNIST."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    for part, size in (("train", 2000), ("t10k", 400)):
        for kind, shape in (("images-idx3", (size, 28, 28)), ("labels-idx1", (size,))):
            count = size * (784 if len(shape) == 3 else 1)
            values = (
                rng.randbytes(count) if len(shape) == 3 else bytes(i % 10 for i in range(count))
            )
            head = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
            path = folder / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(head + values, mtime=0))


def read_training(directory: Path) -> dict[str, str]:
    """Returns digests of logs, and the results and tables without costs, times and memory."""
    outcome = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.suffix == ".jsonl":
            outcome[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "result.json":
            result = json.loads(path.read_text())
            for changing in ("cost", "sha256"):  # the checksum covers what it cost
                result.pop(changing, None)
            outcome[name] = json.dumps(result)
        elif path.name == "table.md":  # the last columns are the time and the memory
            rows = path.read_text().splitlines()
            outcome[name] = "\n".join(row.rsplit("|", 3)[0] for row in rows)
        elif path.name in ("config.json", "study.json", "run.json", "error.txt"):
            outcome[name] = path.read_text()
    return outcome


def read_prepared(directory: Path) -> dict[str, str]:
    """Returns digests of the arrays, and the list of all files, to reveal leftovers."""
    paths = [p for p in sorted(directory.rglob("*")) if p.is_file()]
    arrays = [p for p in paths if p.suffix in (".npy", ".npz") or "array_record" in p.name]
    outcome = {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in arrays
    }
    return outcome | {"files": "\n".join(str(p.relative_to(directory)) for p in paths)}


def start_command(root: Path, arguments: list[str], output: Path) -> subprocess.Popen:
    """Starts `mmjax` in a process of its own."""
    code = "from mmjax.cli import script; script()"
    settings = {
        "JAX_PLATFORMS": "cpu",
        "MMJAX_CACHE": str(root / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with output.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | settings,
            cwd=root,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for_end(process: subprocess.Popen, output: Path, *, killed: bool = False) -> Attempt:
    """Waits for the end of a process, and kills it if it hangs."""
    try:
        code: int | None = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    return Attempt(code, output.read_text(errors="replace"), killed)


def find_logs(directory: Path) -> list[bytes]:
    """Returns the contents of all logs in a directory whose files appear and disappear."""
    return [
        Path(folder, name).read_bytes()
        for folder, _, names in os.walk(directory)
        for name in names
        if name.startswith("metrics-seed") and name.endswith(".jsonl")
    ]


def count_lines(directory: Path) -> int:
    """Counts the lines of all logs."""
    return sum(log.count(b"\n") for log in find_logs(directory))


def count_validations(directory: Path) -> int:
    """Counts the logged validations."""
    return sum(log.count(b"validation/kind/accuracy") for log in find_logs(directory))


def count_checkpoints(directory: Path) -> int:
    """Returns a number that grows when the writing of a checkpoint starts."""
    steps = [
        int(digits)
        for folder, names, _ in os.walk(directory)
        if folder.endswith("checkpoints")
        for name in names
        if (digits := name.split(".")[0]).isdecimal()
    ]
    return sum(steps)


def wait_until(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Waits until the condition holds or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.002)


def time_phases(root: Path, job: Job, directory: Path) -> Times:
    """Runs a command to its end and times its phases."""
    output = root / "output.txt"
    begin = time.monotonic()
    process = start_command(root, job.arguments(directory), output)
    wait_until(process, lambda: "Work directory" in output.read_text())
    started = time.monotonic()
    wait_until(process, lambda: count_lines(directory) > 0)
    compiled = changed = time.monotonic()
    lines = count_lines(directory)
    while process.poll() is None:
        if (logged := count_lines(directory)) > lines:
            lines, changed = logged, time.monotonic()
        time.sleep(0.01)
    attempt = wait_for_end(process, output)
    if attempt.code != 0:
        raise SystemExit(f"{job.name} fails without being killed:\n{attempt.output[-3000:]}")
    end = time.monotonic()
    if job.name == "prepare":
        return Times(end - begin, 0.0, 0.0, 0.0, 0)
    return Times(started - begin, compiled - started, changed - compiled, end - changed, lines)


def kill_in_phase(
    root: Path,
    job: Job,
    directory: Path,
    phase: str,
    signum: int,
    times: Times,
    draw: random.Random,
) -> Attempt:
    """Starts or resumes a command and sends it a signal within a phase."""
    output = root / "output.txt"
    share = draw.random()
    process = start_command(root, job.arguments(directory), output)
    lines, checkpoints = count_lines(directory), count_checkpoints(directory)
    validations = count_validations(directory)
    if phase in ("start", "anywhere"):
        time.sleep(share * times.start)
    elif phase == "compilation":
        wait_until(process, lambda: "Work directory" in output.read_text())
        time.sleep(share * times.compilation)
    elif phase == "steps":
        wanted = lines + int(share * max(times.lines - lines, 1) / 2)
        wait_until(process, lambda: count_lines(directory) > wanted)
    elif phase == "checkpoint":
        wait_until(process, lambda: count_checkpoints(directory) > checkpoints)
        time.sleep(share * 0.03)
    elif phase == "validation":
        wait_until(process, lambda: count_validations(directory) > validations)
        time.sleep(share * 0.01)
    else:
        wait_until(process, lambda: count_lines(directory) >= times.lines)
        time.sleep(share * times.report)
    running = process.poll() is None
    process.send_signal(signum)
    return wait_for_end(process, output, killed=running)


def find_wrong_ends(attempt: Attempt, signum: int) -> list[str]:
    """Lists what is wrong with the end of a command that got a signal."""
    wrong = []
    if attempt.code is None:
        wrong.append("hang")
    # A signal may come before Python has installed a handler, or after the work is done.
    elif attempt.code not in (0, -signum, 128 + signum):
        wrong.append(f"exit code {attempt.code}")
    # Python's own handler of SIGINT raises KeyboardInterrupt until mmjax is imported.
    if "Traceback" in attempt.output and "KeyboardInterrupt" not in attempt.output:
        wrong.append("traceback")
    return wrong


def main() -> None:
    """Runs the campaign and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        jobs = make_jobs(root)
        first = {job.name: time_phases(root, job, root / f"cold-{job.name}") for job in jobs}
        times = {job.name: time_phases(root, job, root / f"whole-{job.name}") for job in jobs}
        del first  # its runs only fill the compilation cache
        whole = {job.name: job.outcome(root / f"whole-{job.name}") for job in jobs}
        for job in jobs:
            if job.outcome(root / f"cold-{job.name}") != whole[job.name]:
                raise SystemExit(f"{job.name} differs between two runs that were not killed.")
        kills, finished, different, wrong = Counter(), Counter(), Counter(), Counter()
        number = 0
        while sum(kills.values()) < options.kills:
            number += 1
            job = jobs[number % len(jobs)]
            directory = root / f"victim-{number}"
            for _ in range(draw.choice((1, 2, 3))):
                phase, signum = draw.choice(job.phases), draw.choice(SIGNALS)
                attempt = kill_in_phase(root, job, directory, phase, signum, times[job.name], draw)
                key = job.name, phase, signal.Signals(signum).name
                kills[key] += attempt.killed
                for what in find_wrong_ends(attempt, signum):
                    wrong[key] += 1
                    print(f"{what} at {key}:\n{attempt.output[-2000:]}", flush=True)
            output = root / "output.txt"
            attempt = wait_for_end(start_command(root, job.arguments(directory), output), output)
            outcome = job.outcome(directory) if directory.exists() else {}
            finished[job.name] += 1
            done = (
                f"{sum(kills.values())} kills, {number} commands, {time.monotonic() - begin:.0f} s"
            )
            print(done, file=sys.stderr, flush=True)
            if attempt.code != 0 or outcome != whole[job.name]:
                different[job.name] += 1
                names = set(whole[job.name] | outcome)
                bad = [k for k in sorted(names) if whole[job.name].get(k) != outcome.get(k)]
                text = f"{job.name} {number} ended with {attempt.code} and differs in {bad}"
                print(f"{text}:\n{attempt.output[-2000:]}", flush=True)
    print("| command | phase | KILL | TERM | INT | wrong ends |")
    print("| :-- | :-- | --: | --: | --: | --: |")
    for job in jobs:
        for phase in job.phases:
            row = [kills[job.name, phase, s.name] for s in map(signal.Signals, SIGNALS)]
            bad = sum(n for key, n in wrong.items() if key[:2] == (job.name, phase))
            print(f"| {job.name} | {phase} | {' | '.join(map(str, row))} | {bad} |")
    print(
        f"\n{sum(kills.values())} kills, {sum(finished.values())} commands resumed to their end, "
        f"{sum(different.values())} of them differ, {sum(wrong.values())} wrong ends (hangs, "
        f"tracebacks, exit codes), {time.monotonic() - begin:.0f} s, seed {options.seed}"
    )
    if sum(different.values()) or sum(wrong.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()

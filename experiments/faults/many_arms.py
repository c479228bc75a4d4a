"""Runs a study of many tiny arms and measures the memory that the process retains per arm.

    python experiments/faults/many_arms.py --arms 300
    python experiments/faults/many_arms.py --arms 1000 --launcher local --arms-per-program 20

Every arm is a program of its own, unless several share one. A program that is never released costs
some 600 memory maps and 50 MB; a process may hold `vm.max_map_count` (65,530) maps, and is ended by
SIGSEGV beyond that. The maps and the resident memory are read from /proc while the study runs, so
this needs Linux. Expected: both stay flat after the first arms; 300 arms take about 15 minutes on
one core. With a launcher it is the memory of the coordinator that is measured, beside the
compilation cache and the time of the report. docs/clusters.md has the figures.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

STUDY = """
import numpy as np
import optax
from mmjax import Experiment, Model, auto_config
from mmjax.study import Study
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.types import Batch


def batch(examples, seed):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, examples)
    vector = rng.normal(size=(examples, 5)) + 2 * np.eye(5)[kind]
    present = np.ones(examples, bool)
    return Batch(
        {"vector": vector.astype(np.float32)},
        {"vector": present},
        {},
        {"kind": kind.astype(np.int32)},
        {"kind": present},
    )


def random_vectors():
    return Dataset(
        "random_vectors",
        {"vector": Modality((5,))},
        {"kind": Task("classification", tuple("abcd"))},
        {name: Arrays(batch(64, i)) for i, name in enumerate(("train", "validation", "test"))},
    )


@auto_config
def experiment():
    return Experiment(
        data=random_vectors(),
        model=Model(
            encoders={"vector": MLPEncoder(features=(8,))},
            fusion=Concat(),
            heads={"kind": Classification(4)},
        ),
        optimizer=optax.adam(1e-2),
        epochs=2,
        batch_size=16,
        eval_batch_size=64,
        monitor="kind/accuracy",
    )


STUDY = Study(
    base=experiment,
    axes={
        "optimizer.learning_rate": [f"{1e-3 * (i + 1):.3f}" for i in range(PROGRAMS)],
        "optimizer.b1": [0.9 - 0.9 * i / ARMS_PER_PROGRAM for i in range(ARMS_PER_PROGRAM)],
    },
    vmapped=("optimizer.b1",),
    seeds=(0,),
)
"""


class Sample(NamedTuple):
    """The memory of a process after it finished an arm.

    Attributes:
      arms: number of finished arms.
      maps: number of memory maps of the process.
      resident: resident memory of the process, in MB.
      seconds: time since the start of the process.
    """

    arms: int
    maps: int
    resident: float
    seconds: float


MMJAX = [sys.executable, "-c", "from mmjax.cli import script; script()"]


def run_study(
    directory: Path,
    arms: int,
    *,
    arms_per_program: int = 1,
    launcher: str = "in-process",
    cache: Path | None = None,
) -> tuple[int, list[Sample]]:
    """Runs the study in a process of its own, in `directory / "study"`.

    Returns:
      Its exit code, and a sample per finished arm.
    """
    file = directory / "many_arms_study.py"
    study = STUDY.replace("ARMS_PER_PROGRAM", str(arms_per_program))
    file.write_text(study.replace("PROGRAMS", str(arms // arms_per_program)))
    workdir = directory / "study"
    command = [*MMJAX, "ablate", str(file), "--workdir", str(workdir), "--launcher", launcher]
    command += ["--devices", "1"]
    command += ["--compilation-cache", str(cache)] if cache else ["--no-compilation-cache"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAXTYPING_DISABLE": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    begin = time.monotonic()
    samples: list[Sample] = []
    with (directory / "output.txt").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        while process.poll() is None:
            done = len(list(workdir.glob("arms/*/result.json")))
            if done > (samples[-1].arms if samples else 0):
                sample = read_process(process.pid)
                if sample is not None:
                    samples.append(Sample(done, *sample, time.monotonic() - begin))
            time.sleep(0.2)
    return process.returncode, samples


def read_process(pid: int) -> tuple[int, float] | None:
    """Reads the number of memory maps and the resident MB of a process; None if it has ended."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().count("\n")
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    except (OSError, StopIteration):
        return None
    return maps, int(resident.split()[1]) / 1024


def main() -> None:
    """Prints a table of maps and memory over the arms, and what the study leaves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arms", type=int, default=300)
    launchers = ("in-process", "local", "ray")
    parser.add_argument("--launcher", choices=launchers, default="in-process")
    parser.add_argument("--arms-per-program", type=int, default=1)
    options = parser.parse_args()
    per_program = options.arms_per_program
    if surplus := options.arms % per_program:
        parser.error(
            f"--arms {options.arms} is not a multiple of --arms-per-program {per_program}; "
            f"choose {options.arms - surplus + per_program}."
        )
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        code, samples = run_study(
            directory,
            options.arms,
            arms_per_program=per_program,
            launcher=options.launcher,
            cache=None if options.launcher == "in-process" else directory / "cache",
        )
        if code:
            print((directory / "output.txt").read_text()[-3000:])
        print_samples(samples)
        print(
            f"\nexit code {code}, {samples[-1].arms if samples else 0} of {options.arms} arms done"
        )
        entries = list((directory / "cache").glob("*-cache"))
        size = sum(entry.stat().st_size for entry in entries) / 1e6
        print(f"compilation cache: {len(entries)} programs, {size:.1f} MB")
        begin = time.monotonic()
        subprocess.run([*MMJAX, "report", str(directory / "study")], check=True)
        print(f"time of the report: {time.monotonic() - begin:.1f} s")


def print_samples(samples: list[Sample]) -> None:
    """Prints about twelve samples as a table, with those of 10, 100 and 1,000 arms."""
    print("| arms | memory maps | resident MB | seconds per arm |")
    print("| --: | --: | --: | --: |")
    every = max(1, len(samples) // 12)
    marks = {next((s.arms for s in samples if s.arms >= n), 0) for n in (10, 100, 1000)}
    before = None
    for i, sample in enumerate(samples):
        if i % every and i < len(samples) - 1 and sample.arms not in marks:
            continue
        arms = sample.arms - (before.arms if before else 0)
        seconds = sample.seconds - (before.seconds if before else 0)
        row = sample.arms, f"{sample.maps:,}", f"{sample.resident:,.0f}", f"{seconds / arms:.2f}"
        print(f"| {' | '.join(map(str, row))} |")
        before = sample


if __name__ == "__main__":
    main()

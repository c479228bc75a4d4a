"""Kills processes of runs that train together, resumes them, and compares the results.

    python experiments/faults/process_kills.py --processes 4 --kills 10 --seed 0

A tiny experiment trains with SGD in N processes of two devices each. A moment is drawn in a phase
(start, steps, writing of a checkpoint), and a process, which gets SIGKILL; one second later the
others are killed, as a cluster ends the rest of a job, and the run is resumed. After one to three
kills it is resumed to its end. Its logs, metrics and digests of parameters must be, byte for byte,
those of N processes that were not killed, and its metrics those of one process with as many
devices, within round-off. The draws depend on the seed only; the step that a kill hits also depends
on the speed of the machine.
"""

import argparse
import json
import math
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from kills import EXPERIMENT, count_checkpoints, count_lines, read_training

TIMEOUT = 900.0  # seconds for a run that is not killed
STARTS = 4  # of a run, until it is said to fail
DEVICES = 2  # per process
PHASES = ("start", "steps", "checkpoint")
OPTIONS = ("--set", "optimizer=optax.sgd(0.03)", "--set", "balancer=equal()")
TOLERANCE = 1e-3  # between summing over eight devices at once, and first within processes


def start_processes(root: Path, directory: Path, count: int, devices: int) -> list:
    """Starts or resumes a run of several processes, whose output goes to files."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = ["run", str(root / "tiny.py"), "--workdir", str(directory), "--resume", *OPTIONS]
    command += ["--checkpoint-every", "20", "--devices", str(count * devices)]
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "MMJAX_CACHE": str(root / "cache"),
    }
    processes = []
    for i in range(count):
        others = ["--coordinator", address, "--process-id", str(i), "--num-processes", str(count)]
        with (root / f"output{i}.txt").open("w") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", "from mmjax.cli import script; script()", *command]
                    + others * (count > 1),
                    env=os.environ | settings,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def finish_run(root: Path, directory: Path, count: int, devices: int) -> int:
    """Runs all processes to their end; if one fails, all are started again, as clusters do.

    On CPU, processes that take more than 30 seconds longer than others to their first sum over
    devices fail, which happens on a machine with more to do than cores.

    Returns:
      The number of starts that failed.

    Raises:
      SystemExit: if the last start fails or hangs.
    """
    for failed in range(STARTS):
        begin = time.monotonic()
        processes = start_processes(root, directory, count, devices)
        while None in (codes := [p.poll() for p in processes]) and not any(codes):
            if time.monotonic() - begin > TIMEOUT:
                break
            time.sleep(0.05)
        kill_all(processes)
        if not any(codes) and None not in codes:
            return failed
        texts = [(root / f"output{i}.txt").read_text()[-1000:] for i in range(count)]
        text = "\n".join([f"{directory.name} ended with {codes}:", *texts])
        print(text, file=sys.stderr, flush=True)
    sys.exit(f"{directory.name} failed {STARTS} times.")


def kill_all(processes: list) -> None:
    """Kills the processes that still run, and waits for all."""
    for process in processes:
        process.kill()
        process.wait()


def kill_in_phase(
    root: Path, directory: Path, count: int, phase: str, seconds: float, draw: random.Random
) -> bool:
    """Starts or resumes a run and kills it within a phase; returns whether it was still running."""
    lines, checkpoints = count_lines(directory), count_checkpoints(directory)
    more, share, victim = draw.randint(0, 40), draw.random(), draw.randrange(count)
    processes = start_processes(root, directory, count, DEVICES)
    begin = time.monotonic()

    def has_come() -> bool:
        if phase == "start":
            return time.monotonic() - begin > share * seconds
        if phase == "steps":
            return count_lines(directory) > lines + more
        return count_checkpoints(directory) > checkpoints

    while all(p.poll() is None for p in processes) and not has_come():
        time.sleep(0.005)
    if phase == "checkpoint":
        time.sleep(share * 0.03)
    running = all(p.poll() is None for p in processes)
    processes[victim].kill()
    time.sleep(1)
    kill_all(processes)
    return running


def find_differences(directory: Path, other: Path) -> list[str]:
    """Lists the metrics that differ by more than round-off between two runs."""
    found = []
    logs = [d / "all" / "metrics-seed0.jsonl" for d in (directory, other)]
    rows = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    rows[0].append(json.loads((directory / "all/result.json").read_text())["seeds"]["0"]["test"])
    rows[1].append(json.loads((other / "all/result.json").read_text())["seeds"]["0"]["test"])
    if len(rows[0]) != len(rows[1]):
        return [f"{len(rows[0])} rows, not {len(rows[1])}"]
    for i, (a, b) in enumerate(zip(*rows, strict=True)):
        for name in (a.keys() | b.keys()) - {"crc32"}:
            if not math.isclose(a[name], b[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE / 10):
                found.append(f"row {i}, {name}: {a[name]}, not {b[name]}")
    return found


def main() -> None:
    """Runs the campaign and prints its counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count, draw, begin = options.processes, random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tiny.py").write_text(EXPERIMENT)
        finish_run(root, root / "one", 1, count * DEVICES)
        started = time.monotonic()
        failures = finish_run(root, root / "whole", count, DEVICES)
        seconds = time.monotonic() - started
        whole = read_training(root / "whole")
        different = find_differences(root / "whole", root / "one")
        kills: Counter[str] = Counter()
        number = 0
        while kills.total() < options.kills:
            number += 1
            directory = root / f"victim-{number}"
            for _ in range(draw.choice((1, 2, 3))):
                phase = draw.choice(PHASES)
                kills[phase] += kill_in_phase(root, directory, count, phase, seconds / 2, draw)
            failures += finish_run(root, directory, count, DEVICES)
            outcome = read_training(directory)
            names = [n for n in sorted(whole | outcome) if whole.get(n) != outcome.get(n)]
            different += [f"victim {number}: {name}" for name in names]
            done = f"{kills.total()} kills, {number} runs, {time.monotonic() - begin:.0f} s"
            print(done, file=sys.stderr, flush=True)
    print(
        f"{count} processes of {DEVICES} devices: {kills.total()} kills {dict(kills)}, "
        f"{number} runs resumed to their end, {len(different)} differences, {failures} failed "
        f"starts, seed {options.seed}, "
        f"{time.monotonic() - begin:.0f} s"
    )
    if different:
        sys.exit("\n".join(different))


if __name__ == "__main__":
    main()

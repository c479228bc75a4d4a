"""Compares mmjax with the same models in plain PyTorch, and both with the limits of the machine.

    pip install -e '.[bench,demo]'
    python experiments/benchmarks/pytorch.py --json times.json --markdown times.md
    python experiments/benchmarks/pytorch.py --cases 1 3 --rounds 3 --threads 1

The cases, by number:

    1  the textbook model: CNN beside two LSTM layers, batch 32 and 128
    2  LeNet with 2, 8 and 40 tasks: equal weights and every gradient method (--methods, --tasks)
    3  AV-MNIST: late fusion of two LeNets
    4  polyglot_digits, the main job
    5  a cross-modal transformer
    6  an epoch of MultiMNIST with its input pipeline
    7  five seeds as one program against one seed
    8  from the start of the process to the end of the first step, cold and with a warm cache
    9  ViT-S beside MiniLM, frozen and trained as a whole, against transformers (extra reference)

Each number of threads has a process of its own. In it the sides take turns, round by round, after a
warm-up, and every figure is a median over the rounds. Without PyTorch its columns are empty. A GPU
is used if JAX, or PyTorch, finds one. README.md has the expected figures.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GROUPS = range(1, 10)


def main() -> None:
    """Measures, and prints Markdown tables; `--json FILE` and `--markdown FILE` also store them."""
    options = parse_options()
    if options.worker or options.memory:
        measure_in_this_process(options)
        return
    cores = len(os.sched_getaffinity(0))
    if max(options.threads) > cores:
        sys.exit(f"--threads {max(options.threads)}: this process may use {cores} cores only.")
    rows = []
    for i, threads in enumerate(options.threads):
        for row in measure_in_worker(threads, remember=i == 0):
            rows.append(row)
            print(format_brief(row), file=sys.stderr, flush=True)
            if options.json:  # written after each row, so that an interrupted run leaves its rows
                options.json.write_text(json.dumps(rows, indent=1))
    from versus import table

    text = table.format_tables(rows)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


def parse_options() -> argparse.Namespace:
    """Parses the options; the hidden ones are for the processes that this command starts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, hidden = parser.add_argument, argparse.SUPPRESS
    add("--cases", type=int, nargs="+", choices=GROUPS, default=list(GROUPS), metavar="N")
    add("--rounds", type=int, default=7, help="samples of each side (default: %(default)s)")
    add("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    add("--methods", nargs="+", metavar="NAME", help="methods of case 2 (default: every one)")
    add("--tasks", type=int, nargs="+", metavar="T", help="tasks of case 2 (default: 2 8 40)")
    add("--json", type=Path, metavar="FILE")
    add("--markdown", type=Path, metavar="FILE")
    add("--worker", type=int, help=hidden)
    add("--remember", action="store_true", help=hidden)
    add("--memory", nargs=2, help=hidden)
    return parser.parse_args()


def measure_in_worker(threads: int, *, remember: bool) -> Iterator[dict[str, Any]]:
    """Yields the rows that a process with so many threads measures.

    Raises:
      CalledProcessError: if the process fails.
    """
    # JAX must not reserve all memory of a GPU, since PyTorch needs some.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, *sys.argv, "--worker", str(threads)]
    command += ["--remember"] * remember
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield from map(json.loads, process.stdout or ())
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def measure_in_this_process(options: argparse.Namespace) -> None:
    """Measures in this process and prints a line of JSON per row, or the memory of one side."""
    threads = options.worker or 1
    # Before JAX and PyTorch start their threads, which are as many as the cores that they see.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    out, sys.stdout = sys.stdout, sys.stderr  # so that no other output mixes with the rows
    from versus import memory, worker
    from versus.cases import lenet

    from mmjax.train.hardware.devices import expose_cpu_cores

    expose_cpu_cores()

    methods, tasks = options.methods or lenet.METHODS, options.tasks or lenet.TASKS
    if options.memory:
        side, name = options.memory
        cases = {case.name: case for case in worker.list_step_cases(methods, tasks)}
        print(*memory.measure_peak_memory(cases[name], side), file=out)
        return
    sides = ("mmjax", "torch") if options.remember else ()
    commands = {side: [sys.executable, *sys.argv, "--memory", side] for side in sides}
    plan = worker.BenchmarkPlan(options.cases, options.rounds, threads, methods, tasks, commands)
    for row in worker.measure_all(plan):
        print(json.dumps(row), file=out, flush=True)


def format_brief(row: dict[str, Any]) -> str:
    """Formats a row as one line, for the progress output."""
    scalars = {k: v for k, v in row.items() if isinstance(v, int | float | str)}
    return ", ".join(
        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in scalars.items()
    )


if __name__ == "__main__":
    main()

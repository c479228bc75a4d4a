"""Trains random small experiments and checks what must hold of any run, whatever its parts.

    python experiments/faults/whole_runs.py --cases 100 --seed 0

Each case draws data, model, balancer, optimizer and options, and runs the commands of a user in
this process. Its stored metrics must be those that evaluating again gives, and those that
scikit-learn computes from the predictions on the raw test examples. One of these must hold besides:

- a run stopped by a signal and resumed has the same logs, results and parameters, byte for byte;
- `--from-run` gives the same bits;
- a seed trained with another one learns what it learns alone;
- two devices, `fsdp`, micro-batches and recomputed layers give the same parameters up to round-off;
- beside arms of single modalities it gives the same bits, and these arms' metrics hold, too;
- the exported file predicts what `mmjax.load` predicts, with missing modalities.

An experiment that is refused in one line is no failure; one whose loss stops being finite is listed
with the refusals, as "after the start". `--only N` repeats one case.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
from random_runs.case import Case, RefusedError
from random_runs.checks import check_evaluation, choose_check

from mmjax.cli import resume_hints
from mmjax.train.hardware import compilation


def run_case(seed: int, number: int, cache: Path) -> tuple[str, str]:
    """Runs one case; returns its verdict and, for a refusal or a failure, what was said."""
    rng, name = random.Random(f"{seed} {number}"), "draw"
    with tempfile.TemporaryDirectory() as folder:
        case = Case(rng, Path(folder), cache)
        check = choose_check(case)
        try:
            name = "run"
            run = case.run("run")
            name = "evaluate"
            check_evaluation(case, run)
            name = check.__name__
            check(case, run)
        except RefusedError as refusal:
            return f"{name} refused", str(refusal)
        except Exception:
            what = traceback.format_exc()[-3000:]
            setup = f"seeds {case.seeds}, devices {case.devices}"
            return f"{name} FAILED", f"{setup}\n{case.draw.source}\n{what}"
        finally:
            shutil.rmtree(case.folder, ignore_errors=True)
            jax.clear_caches()
    return name, ""


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of a case to repeat")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    options = parser.parse_args(arguments)
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_disable_most_optimizations", True)  # each program runs a few steps
    compilation.COMPILER_OPTIONS["cpu"] = compilation.RUN_ONCE_OPTIONS
    resume_hints.is_compiling = lambda: (
        False
    )  # else a refusal while a thread compiles ends all cases
    verdicts: collections.Counter[str] = collections.Counter()
    refusals: collections.Counter[str] = collections.Counter()
    numbers = [options.only]
    if options.only is None:
        numbers = list(range(options.first, options.first + options.cases))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        for number in numbers:
            verdict, text = run_case(options.seed, number, Path(cache))
            verdicts[verdict] += 1
            if verdict.endswith("FAILED"):
                print(f"case {number}, seed {options.seed}: {verdict}\n{text}\n", flush=True)
            elif text:
                refusals[text[:160]] += 1
            print(f"{number} {verdict} {text[:200] if 'refused' in verdict else ''}", flush=True)
    for text, count in refusals.most_common():
        print(f"{count:5}  {text}")
    print("\n| outcome | cases |\n| :-- | --: |")
    for verdict, count in sorted(verdicts.items()):
        print(f"| {verdict} | {count} |")
    failures = sum(count for verdict, count in verdicts.items() if verdict.endswith("FAILED"))
    print(f"| failures | {failures} |\n{time.monotonic() - begin:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

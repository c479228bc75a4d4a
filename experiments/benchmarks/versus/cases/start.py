"""Case 8: from the start of the process to the end of the first step of the main job."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from versus.cases.polyglot import EXPERIMENTS

# The console script `mmjax`, which runs the main job; its first arm is timed.
COMMAND = [sys.executable, "-c", "from mmjax.cli import script; script()", "run"]
TIMEOUT = 600  # seconds


def prepare_data() -> None:
    """Prepares the data set if it is missing, so that no start includes it."""
    make = (
        "import sys; sys.path.insert(0, sys.argv[1]); import polyglot_digits as p; p.experiment()"
    )
    subprocess.run([sys.executable, "-c", make, str(EXPERIMENTS)], check=True)


def make_environment() -> dict[str, str]:
    """Returns the environment of this process, with bytecode stored, as is Python's default."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def time_start(cache: Path) -> float:
    """Measures the seconds to the end of the first step.

    Training logs a line after every dispatch. The time of the second dispatch, spread evenly over
    its steps, gives the time of a step; all steps but one of the first dispatch are subtracted.

    Raises:
      RuntimeError: if the job ends before its second dispatch.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run" / "all" / "metrics-seed0.jsonl"
        arguments = [
            "polyglot_digits.py",
            "--workdir",
            log.parents[1],
            "--compilation-cache",
            cache,
        ]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=EXPERIMENTS,
            env=make_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        times: list[float] = []
        try:
            while time.perf_counter() - begin < TIMEOUT and process.poll() is None:
                lines = log.read_text().count("\n") if log.exists() else 0
                if lines > len(times):
                    times.append(time.perf_counter() - begin)
                if len(times) == 2:
                    steps = json.loads(log.read_text().split("\n")[0])["step"]
                    return times[0] - (times[1] - times[0]) * (1 - 1 / steps)
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    raise RuntimeError("The main job ended before its second dispatch.")


def time_cold_and_warm_starts(rounds: int) -> list[tuple[float, float]]:
    """Measures starts with an empty cache, and with the cache that this start filled."""
    prepare_data()
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            seconds.append((time_start(Path(cache)), time_start(Path(cache))))
    return seconds

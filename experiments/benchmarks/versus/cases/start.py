"""Case 8: from the start of the process to the end of the first step of the main job."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from versus.cases.polyglot import EXPERIMENTS

# The command `mmjax run`, whose first arm trains first.
COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
import polyglot_digits
from mmjax import cli
cli.main(polyglot_digits.experiment, polyglot_digits.ARMS, sys.argv[2:])
"""
PATIENCE = 600  # seconds


def prepare() -> None:
    """Makes the data set if it is not there, so that no start has to."""
    make = (
        "import sys; sys.path.insert(0, sys.argv[1]); import polyglot_digits as p; p.experiment()"
    )
    subprocess.run([sys.executable, "-c", make, str(EXPERIMENTS)], check=True)


def start(cache: Path) -> float:
    """Seconds to the end of the first step.

    Training logs a line after every dispatch. The second one's time is taken to be spread evenly
    over its steps, and the first one's steps but one are taken off.

    Raises:
      RuntimeError: if the job ends before.
    """
    with tempfile.TemporaryDirectory() as there:
        log = Path(there) / "run" / "all" / "metrics-seed0.jsonl"
        options = ["--workdir", str(log.parents[1]), "--compilation-cache", str(cache)]
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(EXPERIMENTS), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        times: list[float] = []
        try:
            while time.perf_counter() - begun < PATIENCE and process.poll() is None:
                lines = log.read_text().count("\n") if log.exists() else 0
                if lines > len(times):
                    times.append(time.perf_counter() - begun)
                if len(times) == 2:
                    steps = json.loads(log.read_text().split("\n")[0])["step"]
                    return times[0] - (times[1] - times[0]) * (1 - 1 / steps)
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    raise RuntimeError("The main job ended before its second dispatch.")


def cold_and_warm(rounds: int) -> list[tuple[float, float]]:
    """Seconds with an empty cache and with the one that this start filled, several times."""
    prepare()
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            found.append((start(Path(cache)), start(Path(cache))))
    return found

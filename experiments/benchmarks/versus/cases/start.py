"""Case 8: from the start of the process to the end of the first dispatch of the main job."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from versus.cases.polyglot import EXPERIMENTS

# The command `mmjax run`, with the arm `all` alone.
COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
import polyglot_digits
from mmjax import cli
cli.main(polyglot_digits.experiment, argv=sys.argv[2:])
"""
PATIENCE = 600  # seconds


def prepare() -> None:
    """Makes the data set if it is not there, so that no start has to."""
    make = (
        "import sys; sys.path.insert(0, sys.argv[1]); import polyglot_digits as p; p.experiment()"
    )
    subprocess.run([sys.executable, "-c", make, str(EXPERIMENTS)], check=True)


def start(cache: Path) -> float:
    """Seconds until the log of training has its first line, which is written after a dispatch.

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
        try:
            while time.perf_counter() - begun < PATIENCE and process.poll() is None:
                if log.exists() and log.stat().st_size:
                    return time.perf_counter() - begun
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    raise RuntimeError("The main job ended before its first dispatch.")


def cold_and_warm(rounds: int) -> list[tuple[float, float]]:
    """Seconds with an empty cache and with the one that this start filled, several times."""
    prepare()
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            found.append((start(Path(cache)), start(Path(cache))))
    return found

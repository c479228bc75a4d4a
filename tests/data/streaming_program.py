"""Streams an experiment file's source by two worker processes; run by `test_workers.py`."""

import gc
import sys
import time
from pathlib import Path

import jax

from mmjax.config.experiment_source import import_file
from mmjax.data.sampling.batch_order import TrainIndexPlan
from mmjax.data.streaming import make_streaming_feed


def fetch():
    module = import_file(Path(sys.argv[1]))
    plan = TrainIndexPlan((0,), 32, 8, tuple((i, i + 1) for i in range(400)))
    for _ in make_streaming_feed(module.Numbers(), jax.devices()[:1], workers=2).chunks(plan):
        print("fetched", flush=True)
        time.sleep(0.5)


if __name__ == "__main__":
    try:
        fetch()
    except KeyboardInterrupt:
        gc.collect()  # grain's arrays complain if they outlive the interpreter's modules
        print("interrupted", flush=True)

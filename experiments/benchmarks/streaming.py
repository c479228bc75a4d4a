"""Measures the throughput of streamed input as a share of that of input on the device.

    python experiments/benchmarks/streaming.py [--batch 64] [--width 256] [--rounds 5] [--workers 0]

Trains one network on random images and spectrograms (28x28 and 40x40, float32) with the programs
and the pipelines that `fit` uses, in turns: four epochs from the device, four streamed. The median
over the rounds of the ratio within a round is printed as a line of JSON: by the clock, and of the
processor time of all cores, which is comparable on a busy machine. `--width` sets how long a step
takes; the pipeline must not delay steps of 5 ms.
Expected on 2 CPU cores: 0.95 or more.
"""

import argparse
import dataclasses
import json
import statistics
import time

import jax
import numpy as np
import optax

from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.train.programs import Programs
from mmjax.train.schedule import Schedule
from mmjax.train.steps.state import LoopState
from mmjax.types import Batch

EXAMPLES = 16384
PASSES = 4  # passes over the data in one turn


class Stored:
    """A source around arrays, so that worker processes have something to read."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`."""
        return self.arrays.take(indices)


def make_random_data(examples: int, workers: int) -> Dataset:
    """Makes images and spectrograms of noise, and a class."""
    draw = np.random.default_rng(0)
    shapes = {"image": (28, 28), "sound": (40, 40)}
    everywhere = np.ones(examples, bool)
    arrays = Arrays(
        Batch(
            inputs={m: draw.random((examples, *s), np.float32) for m, s in shapes.items()},
            present=dict.fromkeys(shapes, everywhere),
            lengths={},
            targets={"class": draw.integers(0, 10, examples).astype(np.int32)},
            labeled={"class": everywhere},
        )
    )
    return Dataset(
        "noise",
        {m: Modality(s) for m, s in shapes.items()},
        {"class": Task("classification", tuple("0123456789"))},
        dict.fromkeys(("train", "validation", "test"), Stored(arrays) if workers else arrays),
    )


def make_experiment(data: Dataset, options: argparse.Namespace, stream: bool) -> Experiment:
    """Builds two dense encoders, whose width sets the cost of a step."""
    width = options.width
    return Experiment(
        data=data,
        model=Model(
            encoders={m: MLPEncoder((width, width)) for m in data.modalities},
            fusion=Concat(),
            sharing=HardSharing((width,)),
            heads={"class": Classification(10)},
        ),
        optimizer=optax.sgd(1e-3),
        batch_size=options.batch,
        epochs=PASSES * (options.rounds + 1),
        stream=stream,
        workers=options.workers,
    )


def train_and_time(
    programs: Programs, state: LoopState, steps: int
) -> tuple[LoopState, float, float]:
    """Trains as `fit` does, and times it.

    Returns:
      The state, and the seconds per step by the clock and of all cores together. Opening the stream
      is included.
    """
    first = state.steps_done
    plan = Schedule(programs.experiment, programs.seeds, programs.splits.size("train"), first)
    ranges = tuple(r for r in plan.ranges if r[1] <= first + steps)
    clock, cores = time.perf_counter(), time.process_time()
    for data, indices in programs.splits.feed("train").chunks(
        dataclasses.replace(plan.dispatches, ranges=ranges)
    ):
        train, metrics = programs.train(state.train, data, indices)
        state = state._replace(train=train)
        jax.device_get(metrics)
    clock, cores = time.perf_counter() - clock, time.process_time() - cores
    return state, clock / steps, cores / steps


def main() -> None:
    """Measures, and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("batch", 64), ("width", 256), ("rounds", 5), ("workers", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    data = make_random_data(EXAMPLES, options.workers)
    runs = {
        name: Programs(make_experiment(data, options, name == "streamed"), (0,), jax.devices())
        for name in ("device", "streamed")
    }
    states = {name: programs.init() for name, programs in runs.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options.rounds + 1):  # the first round compiles and is not counted
        for name, programs in runs.items():
            steps = PASSES * EXAMPLES // options.batch
            states[name], *seconds = train_and_time(programs, states[name], steps)
            times[name].append((seconds[0], seconds[1]))
    device, streamed = (np.array(times[name][1:]) for name in runs)  # [rounds, 2]
    ratios = np.median(device / streamed, axis=0)
    record = {
        "device_ms_per_step": round(1e3 * statistics.median(device[:, 0]), 2),
        "streamed_ms_per_step": round(1e3 * statistics.median(streamed[:, 0]), 2),
        "throughput_ratio": round(float(ratios[0]), 4),
        "core_time_ratio": round(float(ratios[1]), 4),
        "mb_per_step": round(options.batch * (28 * 28 + 40 * 40) * 4e-6, 2),
        "platform": jax.devices()[0].device_kind,
        **vars(options),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()

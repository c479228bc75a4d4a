"""Step time and memory of a frozen, cached or low-rank adapted encoder against a trained one.

    python experiments/benchmarks/freezing.py

A small BERT reads random tokens, and a head classifies them; the arms take turns on the same data,
and the median of their dispatches counts. The state is the parameters and Adam's moments of all
seeds, the peak that of the whole program on one device. It takes about two minutes on two cores.
"""

import statistics
import time

import jax
import numpy as np
import optax

from mmjax import Experiment, Model
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.pretrained import LoRA, backbones
from mmjax.printing.console import print_table
from mmjax.train.programs import Programs
from mmjax.train.schedule import Schedule
from mmjax.types import Batch

EXAMPLES, TOKENS, VOCABULARY, BATCH_SIZE, STEPS = 512, 32, 1000, 32, 4
SEEDS = (0, 1, 2)
ROUNDS = 5
FROZEN = ("heads_*",)
ARMS = {
    "full": {},
    "LoRA, rank 8": {"trainable": FROZEN, "lora": {"encoders_text/*/kernel": LoRA(8)}},
    "frozen": {"trainable": FROZEN},
    "frozen, cached": {"trainable": FROZEN, "cache_frozen": True},
}


def make_data() -> Dataset:
    """Makes random tokens with random classes."""
    rng, splits = np.random.default_rng(0), {}
    for split in ("train", "validation", "test"):
        yes = np.ones(EXAMPLES, bool)
        tokens = rng.integers(0, VOCABULARY, (EXAMPLES, TOKENS)).astype(np.int32)
        lengths = np.full(EXAMPLES, TOKENS, np.int32)
        classes = rng.integers(0, 4, EXAMPLES).astype(np.int32)
        splits[split] = Arrays(
            Batch(
                {"text": tokens}, {"text": yes}, {"text": lengths}, {"kind": classes}, {"kind": yes}
            )
        )
    modality = Modality((TOKENS,), sequence=True)
    return Dataset(
        "tokens", {"text": modality}, {"kind": Task("classification", tuple("abcd"))}, splits
    )


def make_programs(data: Dataset, **options: object) -> Programs:
    """Makes the programs of one arm."""
    size = {"width": 128, "layers": 4, "heads": 4, "hidden": 512, "vocabulary": VOCABULARY}
    model = Model({"text": backbones.BERT(**size)}, Concat(), {"kind": Classification(4)})
    experiment = Experiment(
        data, model, optax.adam(1e-3), batch_size=BATCH_SIZE, steps_per_dispatch=STEPS, **options
    )
    return Programs(experiment, SEEDS, jax.devices()[:1])


def count_bytes(tree: object) -> int:
    """Counts the bytes of a tree's arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def main() -> None:
    """Prints the table."""
    data = make_data()
    arms = {name: make_programs(data, **options) for name, options in ARMS.items()}
    states, inputs, times = {}, {}, {name: [] for name in arms}
    for name, programs in arms.items():
        schedule = Schedule(programs.experiment, SEEDS, EXAMPLES)
        inputs[name] = next(iter(programs.splits.feed("train").chunks(schedule.dispatches)))
        states[name] = programs.compile_and_init(*inputs[name]).train
    for turn in range(ROUNDS + 1):
        for name, programs in arms.items():
            start = time.perf_counter()
            states[name], metrics = programs.train(states[name], *inputs[name])
            jax.block_until_ready(metrics)
            if turn:  # the first dispatch loads the program
                times[name].append(time.perf_counter() - start)
    rows = [["", "ms per step", "speed-up", "state MB", "frozen MB", "peak MB", "of full"]]
    peaks = {name: programs.peak_bytes(*inputs[name]) for name, programs in arms.items()}
    full = statistics.median(times["full"])
    for name, programs in arms.items():
        seconds = statistics.median(times[name])
        state = count_bytes((states[name].params, states[name].opt_state))
        rows.append(
            [
                name,
                f"{1000 * seconds / STEPS / len(SEEDS):.1f}",
                f"{full / seconds:.1f}",
                f"{state / 1e6:.2f}",
                f"{count_bytes(programs.constants) / 1e6:.2f}",
                f"{peaks[name] / 1e6:.1f}",
                f"{peaks[name] / peaks['full']:.2f}",
            ]
        )
    print_table(rows)


if __name__ == "__main__":
    main()

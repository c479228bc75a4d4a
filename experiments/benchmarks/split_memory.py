"""Memory per device of a training whose arrays are split over 1, 2, 4 and 8 devices of a CPU.

    python experiments/benchmarks/split_memory.py

A transformer of width 512 with four layers beside a perceptron, Adam and averages. The training
programs are compiled, but nothing is trained: the bytes of the state follow from the shapes of its
parts, the others are XLA's plan. Each column of the table has those before it in it. It takes about
a minute on two cores; docs/sharding.md has the result.
"""

import itertools

import jax
import numpy as np
import optax

from mmjax import Experiment, Model
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder, TransformerEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.printing.escapes import format_markdown_table
from mmjax.train.memory_estimate import estimate_memory
from mmjax.train.programs import Programs
from mmjax.types import Batch

DEVICES = (1, 2, 4, 8)
EXAMPLES, TIME, FEATURES, BATCH_SIZE = 64, 64, 32, 32
PARTS = ("parameters", "optimizer state", "averages", "activations, gradients, Jacobian")


def make_data() -> Dataset:
    """Makes zeros, of which only the shapes matter."""
    yes = np.ones(EXAMPLES, bool)
    batch = Batch(
        {
            "sequence": np.zeros((EXAMPLES, TIME, FEATURES), np.float32),
            "vector": np.zeros((EXAMPLES, FEATURES), np.float32),
        },
        {"sequence": yes, "vector": yes},
        {"sequence": np.full(EXAMPLES, TIME, np.int32)},
        {"kind": np.arange(EXAMPLES, dtype=np.int32) % 4},
        {"kind": yes},
    )
    modalities = {
        "sequence": Modality((TIME, FEATURES), sequence=True),
        "vector": Modality((FEATURES,)),
    }
    task = Task("classification", tuple("abcd"))
    splits = dict.fromkeys(("train", "validation", "test"), Arrays(batch))
    return Dataset("zeros", modalities, {"kind": task}, splits)


def make_experiment() -> Experiment:
    """Returns the training with split arrays."""
    encoders = {
        "sequence": TransformerEncoder(width=512, layers=4),
        "vector": MLPEncoder((1024, 2048, 768)),
    }
    return Experiment(
        data=make_data(),
        model=Model(encoders=encoders, fusion=Concat(), heads={"kind": Classification(4)}),
        optimizer=optax.adam(1e-3),
        batch_size=BATCH_SIZE,
        ema=0.99,
        sharding="fsdp",
    )


def measure_row(experiment: Experiment, devices: int) -> list[float]:
    """Returns the MB per device of the first part, of the first two, and so on."""
    programs = Programs(experiment, (0,), jax.devices()[:devices])
    sizes = {part.name: part.per_device / 1e6 for part in estimate_memory(programs)}
    return list(itertools.accumulate(sizes[name] for name in PARTS))


def main() -> None:
    """Prints the table."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    experiment = make_experiment()
    rows = [["devices", PARTS[0], *(f"+ {name}" for name in PARTS[1:])]]
    for devices in DEVICES:
        rows.append([str(devices), *(f"{x:.1f}" for x in measure_row(experiment, devices))])
    print(format_markdown_table(rows, 0), end="")


if __name__ == "__main__":
    main()

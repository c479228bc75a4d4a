"""Measures the cost of methods against imbalance: a training step relative to the plain step.

    python experiments/benchmarks/imbalance.py

The model has a perceptron, a GRU and a convolutional encoder, a concatenation and one linear head,
batch 64. Each method's step alternates with the plain one in one process, and the ratio is the
median of the ratios of neighbors, so that a busy machine slows both.
"""

import argparse
import os
from typing import Any

from step_pairs import RunStep, make_timed_step, time_in_pairs


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    # Before JAX starts, since it starts as many threads as there are cores that it sees.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    from mmjax.balance import equal
    from mmjax.modalities import imbalance

    methods = {
        "ogm_ge": imbalance.modulated(equal(), imbalance.ogm_ge()),
        "ogm (no noise)": imbalance.modulated(equal(), imbalance.ogm_ge(noise=False)),
        "agm": imbalance.modulated(equal(), imbalance.agm()),
        "opm": imbalance.opm(equal()),
        "amco": imbalance.amco(equal(), steps=1),
        "cggm": imbalance.modulated(equal(), imbalance.cggm()),
        "info_reg": imbalance.info_reg(equal(), steps=100),
    }
    plain = make_step(equal())
    plain()
    print("| method | ratio | plain step (ms) |")
    print("| :-- | --: | --: |")
    for name, balancer in methods.items():
        step = make_step(balancer)
        step()
        times = time_in_pairs(plain, step, options.rounds)
        print(f"| {name} | {times.ratio:.2f} | {1e3 * times.first:.1f} |", flush=True)


def make_step(balancer: Any) -> RunStep:
    """Returns a function that runs one training step and waits for it."""
    import numpy as np

    from mmjax.encoders import ConvEncoder, MLPEncoder, RecurrentEncoder
    from mmjax.fusion import Concat
    from mmjax.heads import Classification
    from mmjax.model import Model
    from mmjax.types import Batch

    model = Model(
        encoders={
            "image": ConvEncoder((16, 32), width=64),
            "sound": RecurrentEncoder(width=64),
            "vector": MLPEncoder((64,)),
        },
        fusion=Concat(),
        heads={"digit": Classification(10)},
    )
    rng, size = np.random.default_rng(0), 64
    everywhere = np.ones(size, bool)  # present, and labeled
    batch = Batch(
        inputs={
            "image": rng.random((size, 28, 28, 1), np.float32),
            "sound": rng.random((size, 40, 20), np.float32),
            "vector": rng.random((size, 32), np.float32),
        },
        present=dict.fromkeys(model.encoders, everywhere),
        lengths={"sound": np.full(size, 40)},
        targets={"digit": rng.integers(0, 10, size).astype(np.int32)},
        labeled={"digit": everywhere},
    )
    return make_timed_step(model, batch, balancer)


if __name__ == "__main__":
    main()

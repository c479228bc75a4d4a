"""Measures the cost of balancers: the time of a training step relative to equal weights.

    python experiments/benchmarks/balancers.py --tasks 2 8 40 --methods mgda upgrad --threads 1

The model is LeNet on 28x28 images, batch 256: conv 10 k5, conv 20 k5, dense 50, and a head
50 -> 50 -> 10 per task. Every method's step alternates with the equal one in one process, and the
ratio is the median of the ratios of neighbors, so that a busy machine slows both. "weights" is the
time that a method takes from the Gramian to its weights, relative to its step.
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from step_pairs import RunStep, make_timed_step, time_call, time_in_pairs

GRAMIAN_METHODS = (
    *("pcgrad", "gradvac", "mgda", "imtl_g", "cagrad", "nash", "fairgrad", "aligned", "upgrad"),
    *("dualproj", "conflict_free", "krum", "gradnorm"),
)


def main() -> None:
    """Measures and prints a Markdown table; `--json FILE` also writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 8, 40])
    parser.add_argument("--methods", nargs="+", default=GRAMIAN_METHODS)
    parser.add_argument("--wrt", nargs="+", default=["params", "features"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Before JAX starts, since it starts as many threads as there are cores that it sees.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    rows = []
    print("| method | wrt | tasks | ratio | weights | equal step (ms) |")
    print("| :-- | :-- | --: | --: | --: | --: |")
    for tasks in options.tasks:
        for row in compare_methods(options.methods, options.wrt, tasks, options.rounds):
            rows.append(row)
            print(
                f"| {row['method']} | {row['wrt']} | {tasks} | {row['ratio']:.2f} "
                f"| {row['weights']:.1%} | {row['equal_ms']:.1f} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def compare_methods(
    methods: Sequence[str], wrts: Sequence[str], tasks: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yields one row per method and value of `wrt`."""
    from mmjax import balance

    plain = make_step(balance.equal(), tasks)
    plain()  # compile
    for wrt in wrts:
        for method in methods:
            balancer = getattr(balance, method)(wrt=wrt)
            balanced = make_step(balancer, tasks)
            balanced()
            times = time_in_pairs(plain, balanced, rounds)
            yield {
                "method": method,
                "wrt": wrt,
                "tasks": tasks,
                "ratio": times.ratio,
                "weights": time_weights(balancer, tasks, rounds) / times.second,
                "equal_ms": 1e3 * times.first,
            }


def time_weights(balancer: Any, tasks: int, rounds: int, repeats: int = 20) -> float:
    """Measures seconds from a Gramian to weights: an update of gradients with only 64 entries."""
    import jax
    import jax.numpy as jnp

    from mmjax.balance.pullback import pullback_from_jacobian

    shared, names = {"p": True}, [str(i) for i in range(tasks)]
    losses, labeled = jnp.ones(tasks), jnp.ones(tasks, bool)

    @jax.jit
    def run_updates(keys: Any) -> Any:
        def update(state: Any, key: Any) -> Any:
            rows = {"p": jax.random.normal(key, (tasks, 64))}
            pullback = pullback_from_jacobian(rows, shared)
            grads, _, state = balancer.update(losses, pullback, state, key=key, labeled=labeled)
            return state, grads

        return jax.lax.scan(update, balancer.init(names, {"p": jnp.zeros(64)}), keys)

    keys = jax.random.split(jax.random.key(0), repeats)
    jax.block_until_ready(run_updates(keys))
    calls = [time_call(lambda: jax.block_until_ready(run_updates(keys))) for _ in range(rounds)]
    return statistics.median(calls) / repeats


def make_step(balancer: Any, tasks: int) -> RunStep:
    """Returns a function that runs one training step and waits for it."""
    import numpy as np

    from mmjax.encoders import ConvEncoder
    from mmjax.fusion import Concat
    from mmjax.heads import Classification
    from mmjax.model import Model
    from mmjax.types import Batch

    names = [f"task{i:02}" for i in range(tasks)]
    model = Model(
        encoders={"image": ConvEncoder((10, 20), kernel=5, width=50)},
        fusion=Concat(),
        heads={name: Classification(10, hidden=(50,)) for name in names},
    )
    rng = np.random.default_rng(0)
    everywhere = np.ones(256, bool)  # present, and labeled
    batch = Batch(
        inputs={"image": rng.random((256, 28, 28, 1), np.float32)},
        present={"image": everywhere},
        lengths={},
        targets={name: rng.integers(0, 10, 256).astype(np.int32) for name in names},
        labeled=dict.fromkeys(names, everywhere),
    )
    return make_timed_step(model, batch, balancer)


if __name__ == "__main__":
    main()

"""Every deterministic balancer on the two-objective problem of the CAGrad and Nash-MTL papers.

    python experiments/balancers_gallery.py

draws experiments/results/balancers_gallery.png: the paths of two parameters from five starting
points (circles) to their end points (dots) after 50,000 steps of Adam, over the contours of the
mean loss; the thick line is the Pareto set. It also prints the end points.

Expected: from all five starts MGDA, IMTL-G, Nash-MTL, FairGrad, FAMO, GradNorm and MoCo end on the
Pareto set. Equal weights stay in the right valley from (9, 9), as in the papers; weightings by the
logarithm of the losses (uncertainty, geometric, scale_invariant, log_stch, imtl_l) and ExcessMTL
stay in both valleys. The others miss one start, and DB-MTL two. One CPU core takes about a minute.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from jaxtyping import Array, Float

from mmjax import balance
from mmjax.balance import Balancer
from mmjax.balance.pullback import pullback_from_jacobian

STARTS = np.array([[-8.5, 7.5], [-8.5, 5.0], [0.0, 0.0], [9.0, 9.0], [10.0, -8.0]], np.float32)
BOUND = 21.0
SCALE = 0.1
NAMES = """
    equal uncertainty dwa geometric scale_invariant stch log_stch imtl_l famo pbi cosmos gradnorm
    mgda imtl_g cagrad nash fairgrad aligned upgrad dualproj conflict_free db_mtl moco modo
    sdmgrad excess_mtl krum trimmed_mean
"""
METHODS: dict[str, Callable[[], Balancer]] = {n: getattr(balance, n) for n in NAMES.split()}
# As in the paper on this problem: the objectives do not change, so no decay is needed.
METHODS["famo"] = lambda: balance.famo(decay=0.0)


def objectives(x: Float[Array, " 2"]) -> Float[Array, " 2"]:
    """Computes two losses, valleys above bowls, as in Liu et al., NeurIPS 2021 (CAGrad), appendix.

    The first loss is ten times smaller than the second, as in Navon et al., ICML 2022 (Nash-MTL);
    a constant makes both positive, for methods that require it.
    """
    a, b = x
    wave = jnp.tanh(-b)
    valleys = jnp.stack([0.5 * (-a - 7) - wave, 0.5 * (-a + 3) + wave + 2])
    valleys = jnp.log(jnp.maximum(jnp.abs(valleys), 5e-6)) + 6
    bowls = ((jnp.array([7.0, -7.0]) - a) ** 2 + 0.1 * (b + 8) ** 2) / 10 - 20
    above, below = jnp.maximum(jnp.tanh(b / 2), 0), jnp.maximum(jnp.tanh(-b / 2), 0)
    return (valleys * above + bowls * below + BOUND) * jnp.array([SCALE, 1.0])


def trace_paths(balancer: Balancer, steps: int, rate: float) -> Float[Array, "5 k 2"]:
    """Returns a hundred points of the path from each start, and its end point."""
    optimizer = optax.adam(rate)

    def step(carry, k):
        x, opt_state, state = carry
        losses, jacobian = objectives(x), jax.jacrev(objectives)(x)
        pullback = pullback_from_jacobian({"x": jacobian}, {"x": True})
        # The gradients are exact, so independent batches have the same ones.
        parts = (pullback,) * balancer.parts if balancer.parts > 1 else ()
        options = {"key": jax.random.key(0), "labeled": jnp.ones(2, bool)}
        gradient, _, state = balancer.update(
            losses, pullback._replace(parts=parts), state, **options
        )
        updates, opt_state = optimizer.update(gradient["x"], opt_state)
        x = x + updates
        if balancer.after is not None:
            state = balancer.after(state, losses, objectives(x), labeled=options["labeled"])
        return (x, opt_state, state), None

    def run_hundredth(carry, k):
        return jax.lax.scan(step, carry, jnp.arange(steps // 100))[0], carry[0]

    def trace_path(start):
        state = balancer.init(("first", "second"), {"x": start})
        carry = (start, optimizer.init(start), state)
        (end, *_), points = jax.lax.scan(run_hundredth, carry, None, 100)
        return jnp.concatenate([points, end[None]])

    return jax.jit(jax.vmap(trace_path))(jnp.asarray(STARTS))


def compute_pareto_set() -> Float[Array, "w 2"]:
    """Minimizes weighted sums of the two bowls by gradient descent."""

    def minimize(w):
        gradient = jax.grad(lambda x: w @ objectives(x))

        def descend(_, x):
            return x - gradient(x) * 3 / w.max()

        return jax.lax.fori_loop(0, 3000, descend, jnp.array([0.0, -8.0]))

    share = jnp.linspace(0, 1, 101)
    return jax.jit(jax.vmap(minimize))(jnp.stack([share / SCALE, 1 - share], axis=1))


def draw_paths(paths_of: dict[str, np.ndarray], front: np.ndarray, file: Path) -> None:
    """Draws one panel per method, readable in black and white."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grid = np.stack(np.meshgrid(np.linspace(-11, 11, 110), np.linspace(-11, 11, 110)), -1)
    mean = (jax.vmap(jax.vmap(objectives))(jnp.asarray(grid)) / jnp.array([SCALE, 1.0])).mean(-1)
    rows = -(-len(paths_of) // 7)
    figure, axes = plt.subplots(
        rows, 7, figsize=(11.2, 1.72 * rows), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (name, method_paths) in zip(axes.flat, paths_of.items(), strict=False):
        axis.contour(grid[..., 0], grid[..., 1], mean, 12, colors="0.85", linewidths=0.5)
        axis.plot(*front.T, color="0.65", linewidth=4, solid_capstyle="round")
        for path, dashes in zip(method_paths, ("-", "--", "-.", ":", (0, (5, 1))), strict=True):
            axis.plot(*path.T, color="black", linewidth=0.8, linestyle=dashes)
            axis.plot(*path[0], "o", color="black", markerfacecolor="white", markersize=3)
            axis.plot(*path[-1], "o", color="black", markersize=3)
        axis.set_title(name, fontsize=8, pad=2)
        axis.tick_params(labelsize=6)
    for axis in axes.flat[len(paths_of) :]:
        axis.set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Runs the methods, prints their end points and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=1e-3)
    default = Path(__file__).parent / "results" / "balancers_gallery.png"
    parser.add_argument("--file", type=Path, default=default)
    options = parser.parse_args()
    front, paths_of = np.asarray(compute_pareto_set()), {}
    for name in options.methods:
        paths_of[name] = np.asarray(trace_paths(METHODS[name](), options.steps, options.rate))
        ends = paths_of[name][:, -1]
        distance = np.linalg.norm(ends[:, None] - front[None], axis=-1).min(1)
        points = ", ".join(f"({a:.1f}, {b:.1f})" for a, b in ends)
        print(f"{name}: {(distance < 0.3).sum()} of 5 on the Pareto set; {points}", flush=True)
    draw_paths(paths_of, front, options.file)


if __name__ == "__main__":
    main()

"""Each sharing against its formula: one example, task and expert after another, in float64.

Gradients are compared with central differences of the same loops.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.sharing import (
    CGC,
    LTB,
    MTAN,
    PLE,
    Copies,
    CrossStitch,
    DSelectK,
    MMoE,
    TaskSpecific,
)
from mmjax.sharing.dselect_k import _entropy, _smooth_step
from mmjax.sharing.ltb import _choose_straight_through
from tests.tolerance import bound_difference

TASKS = ("a", "b", "c")
EXAMPLES, WIDTH = 3, 4


def relu_layers(p, i, x):
    for name in sorted(p):
        x = np.maximum(x @ p[name]["kernel"][i] + p[name]["bias"][i], 0)
    return x


def dense(p, x, i=...):
    return x @ p["kernel"][i] + p["bias"][i]


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def each(x, count):
    """The inputs of `count` experts: an example of a stack of copies, or one vector for all."""
    return list(x) if x.ndim == 2 else [x] * count


def loop_task_specific(p, x):
    layers = p.get("own_layers", {})
    return [relu_layers(layers, t, x.own[t]) for t in range(3)]


def loop_mmoe(p, x):
    x = x.shared if isinstance(x, Copies) else x
    layers, out = p.get("shared_experts", {}), []
    for t in range(3):
        gate = softmax(x.ravel() @ p["own_gates"]["kernel"][t])
        out.append(sum(gate[i] * relu_layers(layers, i, v) for i, v in enumerate(each(x, 4))))
    return out


def step(t):
    if t <= -0.5:
        return 0.0
    return 1.0 if t >= 0.5 else -2 * t**3 + 1.5 * t + 0.5


def loop_dselect(p, x):
    """Two selectors of two bits among four experts."""
    x = x.shared if isinstance(x, Copies) else x
    layers, out = p.get("shared_experts", {}), []
    for t in range(3):
        z = dense(p["own_selectors"], x.ravel(), t).reshape(2, 2)
        weights = softmax(dense(p["own_weights"], x.ravel(), t))
        total = 0
        for i, v in enumerate(each(x, 4)):
            gate = 0
            for s in range(2):
                first = step(z[s, 0]) if i % 2 else 1 - step(z[s, 0])
                second = step(z[s, 1]) if i // 2 else 1 - step(z[s, 1])
                gate += weights[s] * first * second
            total += gate * relu_layers(layers, i, v)
        out.append(total)
    return out


def level(own_layers, shared_layers, gate_kernel, own_in, shared_in, reads):
    """One CGC: two own experts a task, then three shared ones."""
    own = [relu_layers(own_layers, i, v) for i, v in enumerate(own_in)]
    shared = [relu_layers(shared_layers, i, v) for i, v in enumerate(shared_in)]
    out = []
    for t in range(3):
        seen = own[2 * t : 2 * t + 2] + shared
        out.append(
            sum(g * v for g, v in zip(softmax(reads[t] @ gate_kernel[t]), seen, strict=True))
        )
    return out, own + shared


def loop_cgc(p, x):
    if isinstance(x, Copies):
        own, shared = list(x.own), list(x.shared)
        reads = [np.concatenate(own[2 * t : 2 * t + 2] + shared) for t in range(3)]
    else:
        own, shared, reads = [x] * 6, [x] * 3, [x] * 3
    layers = (p.get("own_experts", {}), p.get("shared_experts", {}))
    return level(*layers, p["own_gates"]["kernel"], own, shared, reads)[0]


def loop_ple(p, x, levels=3):
    common, streams = x, [x] * 3
    for i in range(levels):
        (own,) = (p[n] for n in p if n.endswith(f"_experts_{i}") and not n.startswith("shared"))
        (gates,) = (p[n] for n in p if n.endswith(f"_gates_{i}"))
        inputs = [s for s in streams for _ in range(2)]
        layers = (own, p[f"shared_experts_{i}"], gates["kernel"])
        mixed, everything = level(*layers, inputs, [common] * 3, streams)
        if i < levels - 1:
            gate = softmax(common @ p[f"common_gate_{i}"]["kernel"])
            common = sum(g * v for g, v in zip(gate, everything, strict=True))
        streams = mixed
    return streams


def loop_cross_stitch(p, x):
    def stitch(columns, alpha):
        return [sum(alpha[t, s] * columns[s] for s in range(3)) for t in range(3)]

    layers = sorted(n for n in p if n.startswith("columns_"))
    if isinstance(x, Copies):
        columns = stitch(x.shared, p["stitch" if layers else "own_stitch"])
    else:
        columns = [x] * 3
    for name in layers:
        alpha = p["own_stitch"] if name == layers[-1] else p[name.replace("columns", "stitch")]
        columns = stitch([relu_layers(p[name], t, columns[t]) for t in range(3)], alpha)
    return columns


def loop_mtan(p, x):
    blocks, out = len([n for n in p if n.startswith("own_mask_")]), []
    for t in range(3):
        u = block = x
        for j in range(blocks):
            mask = p[f"own_mask_{j}"]
            if j:
                u = np.maximum(dense(p[f"first_{j}"], block), 0)
                block = np.maximum(dense(p[f"second_{j}"], u), 0)
                seen = np.concatenate([u, np.maximum(dense(mask["before"], taken, t), 0)])
            else:
                seen = u
            hidden = np.maximum(dense(mask["hidden"], seen, t), 0)
            taken = block / (1 + np.exp(-dense(mask["mask"], hidden, t)))
        out.append(taken)
    return out


def loop_ltb(p, x):
    """The likeliest tree."""
    nodes = list(x.shared) if isinstance(x, Copies) else None
    for name in sorted(n for n in p if n.startswith("layer_")):
        if nodes is None:
            inputs = [x] * 4
        else:
            inputs = [nodes[p[name.replace("layer", "parents")][i].argmax()] for i in range(4)]
        nodes = [relu_layers(p[name], i, inputs[i]) for i in range(4)]
    return [nodes[p["own_parents"][t].argmax()] for t in range(3)]


CASES = {
    "task specific": (TaskSpecific((5, 2)), loop_task_specific),
    "mmoe": (MMoE(4, (5, 2)), loop_mmoe),
    "mmoe of backbones": (MMoE(4, backbones=True), loop_mmoe),
    "dselect-k": (DSelectK(4, 2, (5,)), loop_dselect),
    "cgc": (CGC(3, 2, (5, 2)), loop_cgc),
    "cgc of backbones": (CGC(3, 2, backbones=True), loop_cgc),
    "ple": (PLE(3, 3, 2, (5,)), loop_ple),
    "cross-stitch": (CrossStitch((5, 2)), loop_cross_stitch),
    "cross-stitch of both": (CrossStitch((5, 2), backbones=True), loop_cross_stitch),
    "mtan": (MTAN((5, 2)), loop_mtan),
    "mtan of the backbone": (MTAN(), loop_mtan),
    "ltb": (LTB(4, (5, 2)), loop_ltb),
    "ltb of backbones": (LTB(4, (5,), backbones=True), loop_ltb),
}


def random_like(shapes, rng, scale):
    """Numbers that float32 holds, in float64."""
    return jax.tree.map(
        lambda s: (scale * rng.normal(size=s.shape)).astype(np.float32).astype(np.float64), shapes
    )


def make_input(sharing):
    wanted = sharing.copies(TASKS) if hasattr(sharing, "copies") else None
    if wanted is None:
        return jax.ShapeDtypeStruct((EXAMPLES, WIDTH), jnp.float32)
    return jax.tree.map(lambda n: jax.ShapeDtypeStruct((n, EXAMPLES, WIDTH), jnp.float32), wanted)


def by_example(x, i):
    return jax.tree.map(lambda a: a[i] if a.ndim == 2 else a[:, i], x)


@pytest.mark.parametrize(
    ("sharing", "loop"), CASES.values(), ids=[c.replace(" ", "-") for c in CASES]
)
def test_formula_and_gradient(sharing, loop):
    rng, like = np.random.default_rng(0), make_input(sharing)
    shapes = jax.eval_shape(
        lambda k, x: sharing.init(k, x, TASKS, train=False), jax.random.key(0), like
    )
    x, params = random_like((like, shapes.get("params", {})), rng, 0.7)
    out_shape = jax.eval_shape(
        lambda p, x: sharing.apply({"params": p}, x, TASKS, train=False), params, x
    )
    direction = {t: rng.normal(size=s.shape).astype(np.float32) for t, s in out_shape.items()}

    @jax.jit
    def ours(both):
        def scalar(both):
            out = sharing.apply({"params": both[0]}, both[1], TASKS, train=False)
            return sum((direction[t] * out[t]).sum() for t in TASKS), out

        return jax.grad(scalar, has_aux=True)(both)

    def slow(both):
        return np.array([loop(both[0], by_example(both[1], i)) for i in range(EXAMPLES)])

    gradient, got = ours(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, x)))
    expected = slow((params, x))
    for t, task in enumerate(TASKS):
        np.testing.assert_allclose(got[task], expected[:, t], rtol=1e-5, atol=1e-5)

    weights = np.stack([direction[t] for t in TASKS], axis=1).astype(np.float64)
    leaves, treedef = jax.tree.flatten((params, x))
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path((params, x))]
    for i, (path, g) in enumerate(zip(paths, jax.tree.leaves(gradient), strict=True)):
        if "parents" in path:  # a choice at test has no slope; see test_straight_through
            continue
        way = rng.normal(size=leaves[i].shape)
        ends = [
            (
                weights
                * slow(treedef.unflatten([*leaves[:i], leaves[i] + h * way, *leaves[i + 1 :]]))
            ).sum()
            for h in (1e-6, -1e-6)
        ]
        slope = (np.asarray(g, np.float64) * way).sum()
        scale = np.abs(np.asarray(g) * way).sum()
        np.testing.assert_allclose(
            slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-5 * (1 + scale), err_msg=path
        )


def test_one_level_of_ple_is_cgc():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    cgc, ple = CGC(2, 1, (5,)), PLE(1, 2, 1, (5,))
    out, params = jax.jit(lambda k: cgc.init_with_output(k, x, TASKS, train=False))(
        jax.random.key(0)
    )
    renamed = {f"{name}_0": value for name, value in params["params"].items()}
    got = jax.jit(lambda p: ple.apply({"params": p}, x, TASKS, train=False))(renamed)
    for t in TASKS:
        np.testing.assert_allclose(got[t], out[t], atol=bound_difference(50))


def test_smooth_step_is_the_papers_and_has_a_continuous_slope():
    t = jnp.linspace(-3, 3, 61)
    for width in (1.0, 4.0):
        both = jax.value_and_grad(functools.partial(_smooth_step, width=width))
        got, slope = jax.jit(jax.vmap(both))(t)
        inside = -2 / width**3 * t**3 + 3 / (2 * width) * t + 0.5
        expected = np.where(t <= -width / 2, 0, np.where(t >= width / 2, 1, inside))
        np.testing.assert_allclose(got, expected, atol=1e-6)
        steep = np.where(np.abs(t) < width / 2, 3 / (2 * width) - 6 / width**3 * t**2, 0)
        np.testing.assert_allclose(slope, steep, atol=1e-5)


def test_entropy_in_closed_form():
    p = jnp.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(_entropy)))(p)
    np.testing.assert_allclose(value, [0, np.log(2), np.log(4)], atol=1e-6)
    np.testing.assert_allclose(slope[2], -np.log(0.25) - 1, rtol=1e-5)
    assert jnp.isfinite(slope).all()


def test_straight_through():
    """Draws are one-hot, their shares the softmax; the gradient is the softmax's at the draw."""
    logits = jnp.array([0.0, 1.0, -0.5])
    noise = jax.random.gumbel(jax.random.key(0), (20000, 3))
    drawn = jax.jit(_choose_straight_through, static_argnums=2)(
        jnp.broadcast_to(logits, noise.shape), noise, 0.7
    )
    np.testing.assert_allclose(np.sort(drawn, axis=1), [[0, 0, 1]] * 20000, atol=1e-6)
    np.testing.assert_allclose(drawn.mean(0), softmax(np.asarray(logits)), atol=0.015)
    jacobian = jax.jit(jax.jacrev(_choose_straight_through), static_argnums=2)(
        logits, noise[0], 0.7
    )
    soft = softmax(np.asarray(logits + noise[0], np.float64) / 0.7)
    np.testing.assert_allclose(jacobian, (np.diag(soft) - np.outer(soft, soft)) / 0.7, atol=1e-5)

"""Objectives with parameters against slow float64 versions: value, count, and slope."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.auxiliary import ELBO, MFM, Decoders, InfoNCE, Reconstruction, RefNet, Sown
from mmjax.types import Batch, Intermediates, Tokens

B, D, E = 6, 3, 2
RNG = np.random.default_rng(0)
PRESENT = {
    "pixels": np.array([1, 1, 0, 1, 1, 0], bool),
    "series": np.array([1, 0, 1, 1, 1, 0], bool),
    "words": np.array([1, 1, 1, 1, 0, 0], bool),
}
LENGTHS = {"series": np.array([3, 2, 1, 2, 0, 3]), "words": np.array([1, 2, 3, 2, 1, 1])}
VOCABULARY = 4


def make_batch():
    def zeroed(x, m):
        there = PRESENT[m].reshape(-1, *[1] * (x.ndim - 1)) & np.ones(x.shape, bool)
        if m in LENGTHS:
            inside = np.arange(x.shape[1])[None] < LENGTHS[m][:, None]
            there &= inside.reshape(*inside.shape, *[1] * (x.ndim - 2))
        return np.where(there, x, np.zeros_like(x))

    inputs = {
        "pixels": RNG.integers(0, 256, (B, 2, 2)).astype(np.uint8),
        "series": RNG.normal(size=(B, 3, 2)).astype(np.float32),
        "words": RNG.integers(0, VOCABULARY, (B, 3)).astype(np.int32),
    }
    inputs = {m: zeroed(x, m) for m, x in inputs.items()}
    lengths = {m: x.astype(np.int32) for m, x in LENGTHS.items()}
    return Batch(inputs, PRESENT, lengths, {}, {})


BATCH = make_batch()
MASKS = {m: np.stack([p, p & (np.arange(B) % 2 == 0)], axis=1) for m, p in PRESENT.items()}
# What is differentiated by: the fused vector, tokens, and each expert's mean and precision.
POINT = {
    "fused": RNG.normal(size=(B, D)),
    **{m: RNG.normal(size=(B, 2, E)) for m in PRESENT},
    **{f"mean {m}": RNG.normal(size=(B, D)) for m in PRESENT},
    **{f"precision {m}": np.exp(RNG.normal(size=(B, D))) for m in PRESENT},
    "joint mean": RNG.normal(size=(B, D)),
    "joint variance": np.exp(RNG.normal(size=(B, D))),
}


def seen_at(point):
    tokens = {
        m: Tokens(jnp.where(MASKS[m][..., None], point[m], 0), jnp.asarray(MASKS[m]))
        for m in PRESENT
    }
    experts = {
        m: (
            point[f"mean {m}"],
            jnp.where(PRESENT[m][:, None], point[f"precision {m}"], 0),
        )
        for m in PRESENT
    }
    sown = {"gaussian": (point["joint mean"], point["joint variance"]), "experts": experts}
    return Intermediates(tokens, point["fused"], {}, {"fusion": sown, "sharing": {}})


def pooled_slow(point, m, i):
    rows = [point[m][i, j] for j in range(2) if MASKS[m][i, j]]
    return sum(rows) / len(rows) if rows else np.zeros(E)


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def mlp(layers, x):
    """One hidden layer."""
    return dense(layers["Dense_1"], np.maximum(dense(layers["Dense_0"], x), 0))


def error_slow(layers, z, m, i):
    """Sum over an example's elements of -log p, and how many there are."""
    x, total, count = BATCH.inputs[m][i], 0.0, 0
    made = mlp(layers, z)
    made = made.reshape(*x.shape, VOCABULARY) if m == "words" else made.reshape(x.shape)
    for place in np.ndindex(x.shape):
        if not PRESENT[m][i] or (m in LENGTHS and place[0] >= LENGTHS[m][i]):
            continue
        count += 1
        if m == "words":
            total += np.log(np.exp(made[place]).sum()) - made[place][x[place]]
        elif m == "pixels":
            p, target = 1 / (1 + math.exp(-made[place])), x[place] / 255
            total -= target * math.log(p) + (1 - target) * math.log(1 - p)
        else:
            total += (made[place] - x[place]) ** 2 / 2
    return total, count


def reconstruction_slow(params, point, source="fused"):
    total, count = 0.0, 0
    for m in PRESENT:
        for i in range(B):
            if m == source or (source != "fused" and not PRESENT[source][i]):
                continue
            z = point["fused"][i] if source == "fused" else pooled_slow(point, source, i)
            error, elements = error_slow(params["decoders"][f"decode_{m}"], z, m, i)
            if elements:
                total, count = total + error / elements, count + 1
    return total, count


def kl_slow(mean, variance):
    return sum((a * a + v - math.log(v) - 1) / 2 for a, v in zip(mean, variance, strict=True))


def elbo_slow(params, point):
    total, weights, beta = 0.0, {"words": 3.0}, 0.7
    for i in range(B):
        if not any(elements(m, i) for m in PRESENT):
            continue
        total += beta * kl_slow(point["joint mean"][i], point["joint variance"][i])
        for m in PRESENT:
            if not elements(m, i):
                continue
            decode = params["decoders"][f"decode_{m}"]
            weight = weights.get(m, 1.0)
            total += weight * error_slow(decode, point["fused"][i], m, i)[0]
            precision = point[f"precision {m}"][i]
            mean = point[f"mean {m}"][i] * precision / (1 + precision)
            total += weight * error_slow(decode, mean, m, i)[0]
            total += beta * kl_slow(mean, 1 / (1 + precision))
    return total, 5


def elements(m, i):
    return PRESENT[m][i] and (m not in LENGTHS or LENGTHS[m][i] > 0)


def mfm_slow(params, point):
    total, names = 0.0, sorted(PRESENT)
    own = {
        m: [dense(params[f"factor_{m}"], pooled_slow(point, m, i)) for i in range(B)] for m in names
    }
    for i in range(B):
        common = np.maximum(dense(params["common"], point["fused"][i]), 0)
        for m in names:
            z = np.concatenate([np.maximum(dense(params[f"own_{m}"], own[m][i]), 0), common])
            error, count = error_slow(params["decoders"][f"decode_{m}"], z, m, i)
            total += error / max(count, 1)
    whole = [i for i in range(B) if all(MASKS[m][i].any() for m in names)]
    rows = [np.concatenate([point["fused"][i], *(own[m][i] for m in names)]) for i in whole]
    d = len(rows[0])
    s = 2.0 * d
    within = np.mean([math.exp(-sum((x - y) ** 2) / (2 * s)) for x in rows for y in rows])
    across = np.mean([math.exp(-sum(x**2) / (2 * (1 + s))) for x in rows])
    apart = within + (s / (2 + s)) ** (d / 2) - 2 * (s / (1 + s)) ** (d / 2) * across
    return total + 5.0 * apart * 5, 5


def refnet_slow(params, point):
    """The targets are constants."""
    total, count = 0.0, 0
    for m in PRESENT:
        for i in range(B):
            if MASKS[m][i].any():
                x = mlp(params[f"refine_{m}"], point["fused"][i])
                y = pooled_slow(POINT, m, i)
                total += 1 - sum(x * y) / math.sqrt(sum(x * x) * sum(y * y))
                count += 1
    return total, count


def info_nce_slow(params, point):
    scale = math.exp(params["log_scale"])
    total, count, names = 0.0, 0, sorted(PRESENT)
    for k, m in enumerate(names):
        for n in names[k + 1 :]:
            both = [i for i in range(B) if MASKS[m][i].any() and MASKS[n][i].any()]
            made = {
                x: {i: pooled_slow(point, x, i) @ params[f"project_{x}"]["kernel"] for i in both}
                for x in (m, n)
            }
            made = {x: {i: v / np.linalg.norm(v) for i, v in r.items()} for x, r in made.items()}
            for i in both:
                for x, y in ((m, n), (n, m)):
                    logits = [scale * made[x][i] @ made[y][j] for j in both]
                    own = scale * made[x][i] @ made[y][i]
                    total += (math.log(sum(map(math.exp, logits))) - own) / 2
            count += len(both)
    return total, count


DECODERS = Decoders(
    hidden=(4,), likelihoods={"pixels": "bernoulli"}, vocabularies={"words": VOCABULARY}
)
CASES = {
    "reconstruction": (Reconstruction(decoders=DECODERS), reconstruction_slow),
    "reconstruction from words": (
        Reconstruction("words", decoders=DECODERS),
        functools.partial(reconstruction_slow, source="words"),
    ),
    "elbo": (ELBO(0.7, {"words": 3.0}, sample=False, decoders=DECODERS), elbo_slow),
    "mfm": (MFM(2, 3, 5.0, DECODERS), mfm_slow),
    "refnet": (RefNet((4,)), refnet_slow),
    "info_nce": (InfoNCE(3, temperature=0.5), info_nce_slow),
}


def ready(objective):
    """(point -> sums) with random parameters, and the parameters."""
    point = {k: jnp.asarray(v, jnp.float32) for k, v in POINT.items()}
    batch = jax.tree.map(jnp.asarray, BATCH)
    call = {"train": False, "gather": lambda x: x}
    shapes = jax.eval_shape(
        lambda key: objective.init(key, seen_at(point), {}, batch, **call), jax.random.key(0)
    )
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape), shapes)["params"]
    low = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)

    def run(point):
        return objective.apply({"params": low}, seen_at(point), {}, batch, **call)

    return run, point, params


@pytest.mark.parametrize("name", CASES)
def test_value_count_and_slope(name):
    objective, slow = CASES[name]
    run, point, params = ready(objective)
    (total, count), slopes = jax.jit(jax.value_and_grad(run, has_aux=True))(point)
    expected = slow(params, POINT)
    np.testing.assert_allclose((total, count), expected, rtol=1e-5)
    moved = {k: np.array(v) for k, v in POINT.items()}
    for key, array in moved.items():
        for place in np.ndindex(array.shape):
            kept, h = array[place], 1e-5
            array[place] = kept + h
            above = slow(params, moved)[0]
            array[place] = kept - h
            slope = (above - slow(params, moved)[0]) / (2 * h)
            array[place] = kept
            np.testing.assert_allclose(
                slopes[key][place], slope, rtol=1e-4, atol=1e-5, err_msg=f"{key} {place}"
            )


def test_elbo_draws_each_modality_while_training():
    objective = ELBO(decoders=DECODERS)
    _, point, params = ready(objective)
    batch = jax.tree.map(jnp.asarray, BATCH)

    def run(key, train):
        rngs = {"dropout": jax.random.key(key)}
        call = {"train": train, "gather": lambda x: x, "rngs": rngs}
        return objective.apply({"params": params}, seen_at(point), {}, batch, **call)[0]

    run = jax.jit(run, static_argnums=1)
    assert run(0, True) != run(1, True)
    assert run(0, False) == run(1, False)


@pytest.mark.parametrize(("log_scale", "scale"), [(1.0, math.e), (5.0, 100.0)])
def test_the_learned_temperature_is_clipped_and_keeps_its_slope(log_scale, scale):
    objective = InfoNCE(3)
    _, point, params = ready(objective)
    batch = jax.tree.map(jnp.asarray, BATCH)

    def run(log, objective):
        variables = {"params": params | {"log_scale": log}}
        return objective.apply(
            variables, seen_at(point), {}, batch, train=False, gather=lambda x: x
        )[0]

    def both(log):
        fixed = InfoNCE(3, temperature=1 / scale, learned=False)
        return jax.value_and_grad(run)(log, objective), run(log, fixed)

    (value, slope), fixed = jax.jit(both)(jnp.asarray(log_scale))
    np.testing.assert_allclose(value, fixed, rtol=1e-5)
    assert slope != 0


def test_the_mean_of_what_is_sown():
    value = jnp.arange(6.0).reshape(2, 3)
    seen = Intermediates({}, None, {}, {"sharing": {"entropy": value}, "fusion": {}})
    total, count = Sown("sharing", "entropy")(seen, {}, BATCH, train=True, gather=lambda x: x)
    assert (total, count) == (15, 6)

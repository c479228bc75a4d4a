"""Modality dropout, and the rates at which modalities and labels are dropped."""

import functools
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

Rate = float | Float[Array, ""]
Rates = Rate | Mapping[str, Rate]


def drop_modalities(
    key: Key[Array, ""], present: Mapping[str, Bool[Array, ""]], rates: Rates
) -> dict[str, Bool[Array, ""]]:
    """Drops each present modality at its rate, independently, but never all of them.

    If all would be dropped, one of them stays, each equally likely. Neverova et al., TPAMI 2016
    (ModDrop, arXiv:1501.00102).

    Args:
      key: random key.
      present: {modality: whether the example has it}.
      rates: one rate for all modalities, or {modality: rate}; the others stay. Rates may be traced.

    Example:
      >>> present = {"image": jnp.array(True), "text": jnp.array(True)}
      >>> dropped = drop_modalities(jax.random.key(0), present, rates=1.0)
      >>> sum(int(x) for x in dropped.values())  # one of them stays
      1
    """
    # A modality is dropped if draw < rate. Given that, draw / rate is uniform, so that the largest
    # score among those to be dropped, which decides which one stays, is equally likely for each.
    scores = {
        m: _compute_drop_score(jax.random.uniform(fold_in_name(key, m)), get_rate(rates, m))
        for m in present
    }
    best = functools.reduce(jnp.maximum, (jnp.where(present[m], scores[m], 0.0) for m in present))
    return {m: x & (scores[m] >= jnp.minimum(best, 1.0)) for m, x in present.items()}


def get_rate(rates: Rates, name: str) -> Rate:
    """Returns the rate of one modality or task."""
    return rates.get(name, 0.0) if isinstance(rates, Mapping) else rates


def check_rates(name: str, rates: Rates) -> None:
    """Refuses rates outside 0 to 1."""
    for key, rate in rates.items() if isinstance(rates, Mapping) else [("", rates)]:
        check_fraction(f"{name}[{key!r}]" if key else name, rate)


def fold_in_name(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Derives the key of a name."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _compute_drop_score(draw: Float[Array, ""], rate: Rate) -> Float[Array, ""]:
    """Computes draw / rate, or infinity if the rate, which may be traced, is 0."""
    traced = jnp.asarray(rate, draw.dtype)
    # The inner `where` keeps the division finite: gradients pass through both branches.
    return jnp.where(traced > 0, draw / jnp.where(traced > 0, traced, 1), jnp.inf)


def check_fraction(what: str, share: Rate) -> None:
    """Raises ValueError unless a share is between 0 and 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"{what} is {share}; it must be between 0 and 1.")

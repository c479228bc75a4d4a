"""What a corruption is, and how corruptions are applied to a batch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.data.augment import make_example_augmentation
from mmjax.data.modality_dropout import fold_in_name
from mmjax.types import Batch

Level = float | Float[Array, ""]
Corruption = Callable[[Key[Array, ""], Array, Int[Array, ""] | None, Level], Array]
"""(key, x, length, level) -> x of ONE example, of the same shape and type. The level may be traced;
at level 0 the result is x itself, and at level 1 the corruption is strongest."""


def corrupt_batch(
    corruptions: Mapping[str, Corruption],
    batch: Batch,
    level: Any,
    key: Key[Array, ""],
    indices: Int[Array | np.ndarray, " b"],
    *,
    missing: tuple[str, ...] = (),
    together: bool = False,
) -> Batch:
    """Corrupts some modalities of a batch, and removes others at the rate `level`.

    The random numbers depend on the key, the index of the example in its split and the name of the
    modality, and so neither on the batch size nor on the devices. Absent values and padding are not
    changed. No example loses its last modality, see `mmjax.data.modality_dropout`.

    Args:
      corruptions: {modality: corruption}.
      batch: examples; targets stay as they are.
      level: between 0 and 1, may be traced.
      key: random key.
      indices: of the examples in their split.
      missing: modalities that are removed, each with probability `level`.
      together: whether they are removed from the same examples, unless these have no others.

    Example:
      >>> from mmjax.modalities.robustness.text_corruptions import swap_neighbors
      >>> here = {"text": np.ones(1, bool)}
      >>> batch = Batch({"text": np.array([[1, 2, 9]])}, here, {"text": np.array([2])}, {}, {})
      >>> noisy = jax.jit(lambda level: corrupt_batch(
      ...     {"text": swap_neighbors()}, batch, level, jax.random.key(3), jnp.arange(1)))
      >>> noisy(0.0).inputs["text"].tolist()
      [[1, 2, 9]]
    """
    level = jnp.asarray(level, jnp.float32)

    def fix_level(corruption: Corruption) -> Any:
        return lambda key, x, length: corruption(key, x, length, level)

    augments = {m: fix_level(corruption) for m, corruption in corruptions.items()}
    rates = {} if together else dict.fromkeys(missing, level)
    augment = make_example_augmentation(augments, rates)
    if augment is None and not together:
        return batch

    def corrupt_example(key: Key[Array, ""], example: Batch) -> Batch:
        corrupted = example if augment is None else augment(key, example)
        return _remove_together(missing, level, key, corrupted) if together else corrupted

    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.asarray(indices))
    examples = Batch(batch.inputs, batch.present, batch.lengths, {}, {})
    changed = jax.vmap(corrupt_example)(keys, jax.tree.map(jnp.asarray, examples))
    return batch._replace(inputs=changed.inputs, present=changed.present)


def _remove_together(
    missing: tuple[str, ...], level: Any, key: Key[Array, ""], example: Batch
) -> Batch:
    """Removes modalities from ONE example by one draw, unless it has no others."""
    has_others = jnp.array(False)
    for m, has_modality in example.present.items():
        has_others |= has_modality & (m not in missing)
    draw = jax.random.uniform(fold_in_name(key, "+".join(sorted(missing))))
    removed = (draw < level) & has_others
    present = {m: x & ~removed if m in missing else x for m, x in example.present.items()}
    return example._replace(present=present)


def restore_type(new: Array, x: Array, level: Level) -> Array:
    """Returns the changed numbers in the type of x, integers rounded, and x itself at level 0."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        limits = jnp.iinfo(x.dtype)
        new = jnp.clip(jnp.round(new), limits.min, limits.max)
    return jnp.where(level > 0, new.astype(x.dtype), x)


def draw_mask(key: Key[Array, ""], level: Level, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Draws a mask that is true with probability `level`; a higher level keeps what is true."""
    return jax.random.uniform(key, shape) < level

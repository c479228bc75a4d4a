"""LoRA: low-rank updates of frozen kernels, merged into them before a model is applied.

Source: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022.
"""

import dataclasses
import fnmatch
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Key

from mmjax.types import Params

_A, _B, _SCALE = "_lora_a", "_lora_b", "_lora_scale"

Keys = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Size and strength of a low-rank update: kernel + alpha / rank * A B.

    The matrices are the last two axes of a kernel; each index of other axes, such as the layers of
    a scanned stack, has factors of its own.

    Attributes:
      rank: columns of A [in, rank] and rows of B [rank, out]; less than either size of the kernel.
      alpha: strength; None is `rank`, so that the update is A B.

    Example:
      >>> LoRA(rank=8, alpha=16.0).scale
      2.0
    """

    rank: int
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; it must be at least 1.")

    @property
    def scale(self) -> float:
        """Factor of A B."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def add_lora(params: Params, lora: Mapping[str, LoRA], key: Key[Array, ""]) -> Params:
    """Adds the factors of low-rank updates next to the kernels, which are unchanged.

    B is zero at first, so that the model's outputs are those without the update.

    Args:
      params: the parameters.
      lora: {pattern of paths: update}; the first pattern that matches decides.
      key: random key of the factors A, of variance 1 / in.

    Raises:
      ValueError: if a pattern matches nothing that has two axes or more, or a rank is too large.

    Example:
      >>> params = {"dense": {"kernel": jnp.ones((4, 3))}}
      >>> sorted(add_lora(params, {"*/kernel": LoRA(2)}, jax.random.key(0))["dense"])
      ['kernel', 'kernel_lora_a', 'kernel_lora_b', 'kernel_lora_scale']
    """
    flat: dict[Keys, Any] = flatten_dict(params)
    added = dict(flat)
    for keys, update in find_kernels(flat, lora).items():
        kernel, (*parents, name) = flat[keys], keys
        *outer, size, out = kernel.shape
        # One key per path: A does not change when other kernels are added or removed. CRC-32 is the
        # same in every process, unlike `hash`.
        own = jax.random.fold_in(key, zlib.crc32("/".join(keys).encode()) & 0x7FFFFFFF)
        # Variance 1 / in keeps x A at the scale of x. With B = 0 the update is 0, but not the
        # gradient of B.
        a = jax.random.normal(own, (*outer, size, update.rank), kernel.dtype) / size**0.5
        added[*parents, name + _A] = a
        added[*parents, name + _B] = jnp.zeros((*outer, update.rank, out), kernel.dtype)
        # Stored with the parameters: merging them then needs no configuration.
        added[*parents, name + _SCALE] = jnp.asarray(update.scale, kernel.dtype)
    return unflatten_dict(added)


def find_kernels(flat: Mapping[Keys, Any], lora: Mapping[str, LoRA]) -> dict[Keys, LoRA]:
    """Finds the parameters that get a low-rank update.

    Args:
      flat: {keys: parameter, or its shape}.
      lora: {pattern: update}.

    Raises:
      ValueError: as `add_lora` does.
    """
    paths = {"/".join(keys): keys for keys in flat}
    kernels: dict[Keys, LoRA] = {}
    for pattern, update in lora.items():
        for path in fnmatch.filter(paths, pattern):
            shape = tuple(flat[paths[path]].shape)
            if len(shape) < 2:
                raise ValueError(
                    f"lora has the pattern {pattern!r}, which matches {path} of shape {shape}; "
                    "only kernels, with two axes or more, have low-rank updates. End it in /kernel."
                )
            # From this rank on, A B can express any matrix and saves no parameters.
            if update.rank >= (limit := min(shape[-2:])):
                fix = f"it must be less than {limit}" if limit > 1 else "no update is smaller"
                raise ValueError(
                    f"lora has rank {update.rank} for {path} of shape {shape}; {fix}. "
                    f"The pattern {pattern!r} may also leave this kernel out."
                )
            kernels.setdefault(paths[path], update)
    return kernels


def merge_lora(params: Params) -> Params:
    """Returns parameters in which low-rank updates are added to their kernels.

    Args:
      params: parameters, also with leading axes that kernels, factors and scales have in common.

    Example:
      >>> dense = {"kernel": jnp.zeros((2, 2)), "kernel_lora_a": jnp.ones((2, 1))}
      >>> dense |= {"kernel_lora_b": jnp.ones((1, 2)), "kernel_lora_scale": jnp.array(0.5)}
      >>> merge_lora({"dense": dense})["dense"]["kernel"].tolist()
      [[0.5, 0.5], [0.5, 0.5]]
    """
    flat: dict[Keys, Any] = flatten_dict(params)
    merged = dict(flatten_dict(drop_lora_factors(params)))
    for keys, leaf in merged.items():
        if is_updated_kernel(keys, flat):
            a, b, scale = (flat[*keys[:-1], keys[-1] + suffix] for suffix in (_A, _B, _SCALE))
            # The scale has leading axes only, such as replicas; new axes broadcast it.
            scale = scale.reshape(scale.shape + (1,) * (leaf.ndim - scale.ndim))
            # Full precision: a TF32 or bfloat16 product would round more coarsely than the kernel.
            merged[keys] = leaf + scale * jnp.matmul(a, b, precision="highest")
    return unflatten_dict(merged)


def drop_lora_factors(params: Any) -> Any:
    """Returns parameters, or their shapes, without low-rank updates; the kernels are unchanged."""
    flat = flatten_dict(params)
    return unflatten_dict({k: leaf for k, leaf in flat.items() if not is_lora_factor(k)})


def is_lora_factor(keys: Keys) -> bool:
    """Returns whether a path is that of A, B or the scale of a low-rank update."""
    return keys[-1].endswith((_A, _B, _SCALE))


def is_lora_scale(keys: Keys) -> bool:
    """Returns whether a path is that of the scale of a low-rank update, which does not train."""
    return keys[-1].endswith(_SCALE)


def is_updated_kernel(keys: Keys, flat: Mapping[Keys, Any]) -> bool:
    """Returns whether a parameter has a low-rank update."""
    return (*keys[:-1], keys[-1] + _A) in flat


def list_update_keys(keys: Keys) -> list[Keys]:
    """Lists the paths of a kernel and of its low-rank update."""
    return [keys, *((*keys[:-1], keys[-1] + suffix) for suffix in (_A, _B, _SCALE))]

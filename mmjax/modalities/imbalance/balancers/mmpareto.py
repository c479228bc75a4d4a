"""MMPareto: per encoder, the unimodal and the multimodal gradient where they conflict."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.balance import Balancer
from mmjax.balance.jacobian_rows import gramian
from mmjax.modalities.imbalance.balancers.weights_by_name import find_losses
from mmjax.modalities.imbalance.modulation.modulated import find_encoder_modality
from mmjax.types import Params


def combine_two_gradients(gram: Float[Array, "2 2"], gamma: float) -> Float[Array, " 2"]:
    """Returns the weights of two gradients by MMPareto's rule.

    Without a conflict, ⟨g, u⟩ >= 0, the direction is h = g + u; otherwise h = 2 (a g + (1 - a) u),
    with the a in [0, 1] of least norm. Then h is lengthened to the norm of g + u if it is shorter,
    and multiplied by gamma.

    Example:
      >>> combine_two_gradients(jnp.eye(2), 1.5).tolist()
      [1.5, 1.5]
    """
    gg, gu, uu = gram[0, 0], gram[0, 1], gram[1, 1]
    # |a g + (1 - a) u|² is least at a = (uu - gu) / (gg - 2 gu + uu), inside of [0, 1] in a
    # conflict.
    divisor = gg - 2 * gu + uu
    a = jnp.where(divisor > 0, (uu - gu) / jnp.where(divisor > 0, divisor, 1.0), 0.5)
    share = jnp.where(gu >= 0, 0.5, jnp.clip(a, 0.0, 1.0))
    w = 2 * jnp.stack([share, 1 - share])
    sum_square, square = gg + 2 * gu + uu, w @ gram @ w
    safe = jnp.where(square > 0, square, 1.0)
    stretch = jnp.where(square > 0, jnp.sqrt(jnp.maximum(sum_square / safe, 1.0)), 1.0)
    return gamma * stretch * w


def mmpareto(unimodal: Mapping[str, str], *, gamma: float = 1.5) -> Balancer:
    """Combines, per modality, the gradients of its unimodal and of the other losses.

    The encoder of modality m gets the sum g of the gradients of all losses but the unimodal ones,
    and the sum u of the gradients of its own unimodal losses, combined by `combine_two_gradients`.
    All other parameters get the plain sum. The norms are those of the whole encoder's gradient.

    Args:
      unimodal: {name of a unimodal loss: its modality}; see `UnimodalLoss`.
      gamma: the factor that enlarges the gradient for the sake of generalization.

    Source: Wei & Hu, "MMPareto: boosting multimodal learning with innocent unimodal assistance",
    ICML 2024 (arXiv:2405.17730), for two modalities and one task.

    Raises:
      ValueError: if the dictionary is empty, or gamma is not positive.

    Example:
      >>> balancer = mmpareto({"only_a": "a", "only_b": "b"})
      >>> balancer.init(("digit", "only_a", "only_b"), {}).astype(int).tolist()
      [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    if not unimodal:
        raise ValueError("mmpareto needs {name of a unimodal loss: modality}; it is empty.")
    if not isinstance(gamma, jax.Array) and not gamma > 0:
        raise ValueError(f"mmpareto: gamma is {gamma}; it must be positive.")
    modalities = sorted(set(unimodal.values()))

    def init(tasks: Sequence[str], shared: Params) -> Float[Array, "m t"]:
        places = find_losses("mmpareto", unimodal, tasks)
        rows = [[float(i not in places) for i in range(len(tasks))]]
        for m in modalities:
            of_modality = find_losses("mmpareto", [n for n in unimodal if unimodal[n] == m], tasks)
            rows.append([float(i in of_modality) for i in range(len(tasks))])
        return jnp.array(rows)

    def update(losses, pullback, state, *, key, labeled):
        ones = jnp.ones_like(losses)
        parts = [pullback(row) for row in state]
        plain = jax.tree.map(lambda *g: sum(g[1:], start=g[0]), *parts)
        leaves, treedef = jax.tree.flatten_with_path(plain)
        flat = [jax.tree.leaves(part) for part in parts]
        owners = [find_encoder_modality(path, modalities) for path, _ in leaves]
        combined = [leaf for _, leaf in leaves]
        for k, m in enumerate(modalities):
            places = [i for i, owner in enumerate(owners) if owner == m]
            if not places:
                continue
            pairs = [jnp.stack([flat[0][i], flat[1 + k][i]]) for i in places]
            w = combine_two_gradients(gramian(pairs), gamma)
            for i, pair in zip(places, pairs, strict=True):
                combined[i] = jnp.tensordot(w.astype(pair.dtype), pair, axes=1)
        return jax.tree.unflatten(treedef, combined), ones, state

    return Balancer(init, update)

"""Learning to branch: the model learns which tasks share which layers."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.sharing.copies import Copies
from mmjax.sharing.experts import Expert, apply_experts, check_expert_counts, split_by_task


class LTB(nn.Module):
    """Layers of n nodes; each node takes its input from ONE node below, each task from one on top.

    The choice of a parent is a categorical variable with learned logits. While training it is drawn
    by the Gumbel-max trick, independently per example, with the gradient of the softmax at
    `temperature` (straight-through); at test it is the most likely parent. So training, like
    testing, uses trees only, and needs no schedule of the temperature as the paper's mixtures do.

    The tasks' choices are sown as "gates" [t b n].

    Source: Guo et al., ICML 2020 (arXiv:2006.01895); Jang et al., ICLR 2017 (arXiv:1611.01144).

    Attributes:
      nodes: number of nodes in each layer.
      features: width of each layer.
      backbones: whether the nodes of the lowest layer are copies of the whole backbone.
      temperature: of the softmax that gives the logits their gradient.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = LTB(nodes=3, features=(4,)), jnp.zeros((2, 6))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    nodes: int
    features: tuple[int, ...] = ()
    backbones: bool = False
    temperature: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_expert_counts(self, "nodes")
        if self.temperature <= 0:
            raise ValueError(f"LTB.temperature is {self.temperature}; it must be positive.")
        super().__post_init__()

    def copies(self, tasks: Sequence[str]) -> Copies | None:
        """Returns one copy per node if `backbones`, else None."""
        del tasks
        return Copies(shared=self.nodes) if self.backbones else None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"] | Copies, tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """Maps [b d], or copies [n b d], to {task: [b features[-1]]}; draws with key "dropout"."""
        x = x.shared if isinstance(x, Copies) else x
        for i, width in enumerate(self.features):
            if x.ndim == 3:
                x = self.branch(x, self.nodes, f"parents_{i}", train=train)
            layer = Expert((width,), self.dropout, name=f"layer_{i}")
            x = apply_experts(layer, self.nodes, x, train=train)
        return split_by_task(self.branch(x, len(tasks), "own_parents", train=train), tasks)

    def branch(
        self, parents: Float[Array, "n b d"], children: int, name: str, *, train: bool
    ) -> Float[Array, "c b d"]:
        """Returns per child the output of the parent that it chooses."""
        logits = self.param(name, nn.initializers.zeros, (children, len(parents)))
        shape = (children, parents.shape[1], len(parents))
        logits = jnp.broadcast_to(logits[:, None, :], shape).astype(jnp.float32)
        # argmax(logits + Gumbel noise) is a draw from softmax(logits); without noise it is the
        # mode.
        noise = jax.random.gumbel(self.make_rng("dropout"), shape) if train else jnp.zeros(shape)
        one_hot = _choose_straight_through(logits, noise, self.temperature).astype(parents.dtype)
        if name.startswith("own_"):
            self.sow("intermediates", "gates", one_hot)
        return jnp.einsum("cbn,nbd->cbd", one_hot, parents)


def _choose_straight_through(
    logits: Float[Array, "*s n"], noise: Float[Array, "*s n"], temperature: float
) -> Float[Array, "*s n"]:
    """Returns one-hot vectors at the largest of logits + noise, with the gradient of a softmax."""
    noisy = logits + noise
    soft = nn.softmax(noisy / temperature)
    hard = jax.nn.one_hot(noisy.argmax(axis=-1), logits.shape[-1])
    # The value is `hard`, the derivative that of `soft`.
    return hard + (soft - jax.lax.stop_gradient(soft))

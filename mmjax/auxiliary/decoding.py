"""Decoders from vectors to inputs, and the likelihood of the inputs under them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from mmjax.encoders.mlp import to_float
from mmjax.masks import make_value_mask
from mmjax.types import Batch

Likelihood = Literal["gaussian", "bernoulli", "categorical"]
Errors = dict[str, Float[Array, " b"]]


def negative_log_likelihood(
    prediction: Float[Array, "..."], target: Num[Array, "..."], likelihood: Likelihood
) -> Float[Array, "..."]:
    """Computes -log p(target) of each element, in nats; at least 0.

    "gaussian": ½ (x - μ)², of variance 1 and without its constant; "bernoulli": the cross-entropy
    of sigmoid(logit) against a target in [0, 1]; "categorical": that of softmax(logits), along the
    last axis, against a class index.

    Example:
      >>> mean, x = jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])
      >>> negative_log_likelihood(mean, x, "gaussian").tolist()
      [0.0, 2.0]
    """
    if likelihood == "gaussian":
        # -log N(x; mu, 1) without log(2 pi) / 2.
        return (prediction - target) ** 2 / 2
    if likelihood == "bernoulli":
        return optax.losses.sigmoid_binary_cross_entropy(prediction, target)
    # -log softmax(logits) at the index of the true class.
    log = jax.nn.log_softmax(prediction)
    return -jnp.take_along_axis(log, target[..., None], axis=-1)[..., 0]


class MLPDecoder(nn.Module):
    """Dense + ReLU per hidden width, then Dense to a shape.

    Attributes:
      shape: of the output for one vector.
      hidden: widths.

    Example:
      >>> decoder, z = MLPDecoder((4, 3)), jnp.zeros((2, 5))
      >>> jax.eval_shape(decoder.init_with_output, jax.random.key(0), z)[0].shape
      (2, 4, 3)
    """

    shape: tuple[int, ...]
    hidden: tuple[int, ...] = (128,)

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b ..."]:
        """Maps [b d] to [b *shape]."""
        for width in self.hidden:
            z = nn.relu(nn.Dense(width)(z))
        return nn.Dense(math.prod(self.shape))(z).reshape(len(z), *self.shape)


class Decoders(nn.Module):
    """One decoder and one likelihood per modality.

    The targets are the inputs: floats as they are, uint8 and uint16 pixels brought to [0, 1], other
    integers as class indices.

    Attributes:
      modules: {modality: any Flax module [b d] -> [b *shape], or logits [b *shape vocabulary]};
        the others get an `MLPDecoder`.
      likelihoods: {modality: "gaussian", "bernoulli" or "categorical"}; by default "categorical"
        for integer tokens and "gaussian" for all else.
      vocabularies: {modality: number of classes}, for "categorical" without a module.
      hidden: widths of every `MLPDecoder`.

    Example:
      >>> x = jnp.ones((2, 3))
      >>> batch = Batch({"x": x}, {"x": jnp.array([True, False])}, {}, {}, {})
      >>> vectors = {"x": jnp.zeros((2, 4))}
      >>> call, key = jax.jit(Decoders().init_with_output), jax.random.key(0)
      >>> (errors, elements), _ = call(key, vectors, batch)
      >>> errors["x"].tolist(), elements["x"].tolist()
      ([1.5, 0.0], [3.0, 0.0])
    """

    modules: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    likelihoods: Mapping[str, Likelihood] = dataclasses.field(default_factory=dict)
    vocabularies: Mapping[str, int] = dataclasses.field(default_factory=dict)
    hidden: tuple[int, ...] = (128,)

    @nn.compact
    def __call__(self, vectors: dict[str, Float[Array, "b d"]], batch: Batch) -> tuple[Any, Any]:
        """Computes the negative log-likelihood of each modality's input given its vector.

        Args:
          vectors: {modality: the vector to decode}.
          batch: the inputs, with zeros for what is missing.

        Returns:
          {modality: negative log-likelihood [b], summed over the input's elements}, and
          {modality: number of these elements [b]}; both are 0 for an absent modality, and padding
          does not count.

        Raises:
          ValueError: if a likelihood does not fit the input, or a decoder makes another shape.
        """
        for part in ("modules", "likelihoods", "vocabularies"):
            if unknown := sorted(set(getattr(self, part)) - set(batch.inputs)):
                raise ValueError(
                    f"Decoders.{part} names {unknown[0]!r}, but the modalities are "
                    f"{sorted(batch.inputs)}."
                )
        errors, elements = {}, {}
        for m, z in sorted(vectors.items()):
            errors[m], elements[m] = self.decode_and_compare(m, z, batch)
        return errors, elements

    def decode_and_compare(
        self, modality: str, z: Float[Array, "b d"], batch: Batch
    ) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Returns one modality's negative log-likelihood and number of elements."""
        x = batch.inputs[modality]
        if isinstance(x, Mapping):
            raise ValueError(
                f"{modality!r} consists of {sorted(x)}, which no decoder compares; leave it out of "
                "the objective's modalities."
            )
        likelihood = _resolve_likelihood(modality, x, self.likelihoods.get(modality))
        target = x if likelihood == "categorical" else to_float(x)
        prediction = self.decoder(modality, x.shape[1:], likelihood)(z)
        _check_decoded_shape(modality, prediction, x, classes=likelihood == "categorical")
        errors = negative_log_likelihood(prediction, target, likelihood)
        mask = make_value_mask(x, batch.present[modality], batch.lengths.get(modality))
        mask = jnp.broadcast_to(mask, x.shape).reshape(len(x), -1)
        # Padding and absent inputs have no error, so that the sum and the count agree.
        errors = jnp.where(mask, errors.reshape(len(x), -1), 0)
        return errors.sum(axis=1), mask.sum(axis=1).astype(errors.dtype)

    def decoder(self, modality: str, shape: tuple[int, ...], likelihood: Likelihood) -> nn.Module:
        """Returns the given decoder, or a small MLP."""
        if modality in self.modules:
            return self.modules[modality]
        if likelihood == "categorical":
            if modality not in self.vocabularies:
                raise ValueError(
                    f"The decoder of {modality!r} predicts integer tokens; say how many there are: "
                    f"Decoders(vocabularies={{{modality!r}: ...}})."
                )
            shape = (*shape, self.vocabularies[modality])
        return MLPDecoder(shape, self.hidden, name=f"decode_{modality}")


def _resolve_likelihood(
    modality: str, x: Num[Array, "b ..."], likelihood: str | None
) -> Likelihood:
    """Returns the given likelihood, or the default for the input's type.

    Raises:
      ValueError: if it does not fit the input's type, or is unknown.
    """
    integers = jnp.issubdtype(x.dtype, jnp.integer)
    tokens = integers and x.dtype not in (jnp.uint8, jnp.uint16)
    if likelihood is None:
        return "categorical" if tokens else "gaussian"
    if likelihood == "categorical" and integers:
        return "categorical"
    if likelihood in ("gaussian", "bernoulli") and not tokens:
        return "gaussian" if likelihood == "gaussian" else "bernoulli"
    fits = "'categorical'" if tokens else "'gaussian' or 'bernoulli'"
    raise ValueError(
        f"The likelihood of {modality!r} is {likelihood!r}, but its input is {x.dtype}; use {fits}."
    )


def _check_decoded_shape(modality: str, prediction: Array, x: Any, *, classes: bool) -> None:
    """Raises ValueError unless a decoder predicts every element of the input x."""
    if (prediction.shape[:-1] if classes else prediction.shape) != x.shape:
        raise ValueError(
            f"The decoder of {modality!r} makes {prediction.shape[1:]} of an example, but the "
            f"input has the shape {x.shape[1:]}"
            + (", to be followed by the classes." if classes else ".")
        )

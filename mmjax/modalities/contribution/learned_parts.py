"""Partial information decomposition of continuous modalities, learned from samples.

Like `information_parts`, but over the examples of a batch: the coupling q(x1, x2 | y) is given by
two networks, and Sinkhorn's iterations give it the marginals that two classifiers predict. The
least I_q(X1 X2; Y) over the networks' parameters is the information without synergy. This is the
estimator BATCH of Liang et al., "Quantifying & Modeling Multimodal Interactions", NeurIPS 2023,
with two differences: the marginals of both sides are first given the same class frequencies,
without which no coupling has both; and the iterations are computed in logarithms.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mmjax.modalities.contribution.information_parts import InformationParts
from mmjax.modalities.contribution.sinkhorn import couple, match_class_frequencies

_EMBEDDING = 16  # size of the vectors whose products are the log couplings


class PairedExamples(NamedTuple):
    """Features of two modalities, and labels.

    Attributes:
      first: Float[n d1], features of the first modality.
      second: Float[n d2], those of the second one.
      target: Int[n], classes from 0 on.
    """

    first: Any
    second: Any
    target: Any


class _Perceptron(nn.Module):
    """Dense + ReLU layers, and a linear one."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b o"]:
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


def learn_information_parts(
    train: PairedExamples,
    test: PairedExamples,
    *,
    classes: int,
    hidden: tuple[int, ...] = (64,),
    steps: int = 500,
    coupling_steps: int = 200,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> InformationParts:
    """Estimates the decomposition of the information of two modalities about a class, in bits.

    The estimate is only as good as its three classifiers, from either modality and from both: what
    they cannot learn is missing from the information, and what they fit by heart is added. Parts
    may come out slightly negative. `gap` is 0: nothing bounds the error.

    Args:
      train: examples to train the classifiers and the coupling, all of them labeled.
      test: other examples, on which the parts are computed; a last incomplete batch is left out.
      classes: number of classes.
      hidden: widths of the hidden layers of all networks.
      steps: training steps of the classifiers.
      coupling_steps: training steps of the coupling.
      batch_size: examples per step, and per coupling.
      learning_rate: that of Adam, decayed to 0 by a cosine.
      seed: seed of parameters and batches.

    Raises:
      ValueError: there are fewer examples than a batch holds.
    """
    _check_sizes({"train": train, "test": test}, batch_size)
    key = jax.random.key(seed)
    train, test = _standardize_features(train, [train, test])
    optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, steps), weight_decay=1e-3)
    networks = _Networks(
        _Perceptron(hidden, classes), _Perceptron(hidden, classes * _EMBEDDING), classes
    )
    fit = functools.partial(_fit, examples=train, batch_size=batch_size)
    classifiers = fit(
        networks.compute_cross_entropies,
        networks.init_classifiers(train, jax.random.fold_in(key, 0)),
        optimizer=optimizer,
        steps=steps,
        key=jax.random.fold_in(key, 1),
    )
    coupling = fit(
        lambda params, batch: networks.compute_parts(classifiers, params, batch)[2],
        networks.init_coupling(train, jax.random.fold_in(key, 2)),
        optimizer=optax.adam(optax.cosine_decay_schedule(learning_rate, coupling_steps)),
        steps=coupling_steps,
        key=jax.random.fold_in(key, 3),
    )
    return _measure_parts(networks, classifiers, coupling, _stack_batches(test, batch_size, seed))


def _measure_parts(
    networks: "_Networks", classifiers: Any, coupling: Any, batches: PairedExamples
) -> InformationParts:
    """Averages the parts over batches [batches size ...], in bits."""
    compute = functools.partial(networks.compute_parts, classifiers, coupling)
    parts = jax.jit(lambda batches: jax.lax.map(compute, batches))(batches)
    of_first, of_second, least, whole = (float(x.mean()) / math.log(2) for x in parts)
    return InformationParts(
        redundancy=of_first + of_second - least,
        unique_first=least - of_second,
        unique_second=least - of_first,
        synergy=whole - least,
    )


def _check_sizes(parts: Mapping[str, PairedExamples], batch_size: int) -> None:
    """Refuses examples that do not fill a batch."""
    for name, examples in parts.items():
        if len(examples.target) < batch_size:
            raise ValueError(
                f"{name} has {len(examples.target)} examples, fewer than a batch of {batch_size}; "
                "give more examples or a smaller batch_size."
            )


def _stack_batches(examples: PairedExamples, size: int, seed: int) -> PairedExamples:
    """Shuffles examples into batches [batches size ...] and drops an incomplete last one."""
    batches = len(examples.target) // size
    rows = np.random.default_rng(seed).permutation(len(examples.target))[: batches * size]
    stacked = [x[rows].reshape(batches, size, *x.shape[1:]) for x in examples]
    return PairedExamples(*stacked)


def _standardize_features(
    train: PairedExamples, parts: Sequence[PairedExamples]
) -> list[PairedExamples]:
    """Brings the features to mean 0 and deviation 1 over the training examples, in float32."""
    scales = [(x.mean(axis=0)[None], x.std(axis=0)[None] + 1e-6) for x in train[:2]]
    scaled = []
    for examples in parts:
        features = [(x - m) / s for x, (m, s) in zip(examples[:2], scales, strict=True)]
        first, second = (jnp.asarray(x, jnp.float32) for x in features)
        scaled.append(PairedExamples(first, second, jnp.asarray(examples.target, jnp.int32)))
    return scaled


class _Networks(NamedTuple):
    """The architectures: of the classifiers, and of the two sides of the coupling."""

    classifier: nn.Module
    side: nn.Module
    classes: int

    def init_classifiers(self, examples: PairedExamples, key: Array) -> Any:
        """Makes the parameters of three classifiers."""
        both = jnp.concatenate(examples[:2], axis=1)
        inputs = (*examples[:2], both)
        keys = jax.random.split(key, 3)
        return [self.classifier.init(k, x[:1]) for k, x in zip(keys, inputs, strict=True)]

    def init_coupling(self, examples: PairedExamples, key: Array) -> Any:
        """Makes the parameters of the two sides of the coupling."""
        keys = jax.random.split(key, 2)
        return [self.side.init(k, x[:1]) for k, x in zip(keys, examples[:2], strict=True)]

    def classify(self, params: Any, batch: PairedExamples) -> list[Float[Array, "b c"]]:
        """Computes the log-probabilities of the three classifiers."""
        inputs = (*batch[:2], jnp.concatenate(batch[:2], axis=1))
        outputs: Any = [self.classifier.apply(p, x) for p, x in zip(params, inputs, strict=True)]
        return [nn.log_softmax(x) for x in outputs]

    def compute_cross_entropies(self, params: Any, batch: PairedExamples) -> Float[Array, ""]:
        """Computes the sum of the mean cross-entropies of the three classifiers."""
        rows = jnp.arange(len(batch.target))
        log_p = jnp.stack(self.classify(params, batch))
        return -log_p[:, rows, batch.target].mean(axis=1).sum()

    def compute_parts(
        self, classifiers: Any, coupling: Any, batch: PairedExamples
    ) -> tuple[Float[Array, ""], ...]:
        """Computes I(X1; Y), I(X2; Y), I_q(X1 X2; Y) and I(X1 X2; Y) of a batch, in nats."""
        count = len(batch.target)
        prior = jnp.bincount(batch.target, length=self.classes) / count
        log_first, log_second, log_both = self.classify(classifiers, batch)
        first, second = (
            match_class_frequencies(jnp.exp(x), prior) for x in (log_first, log_second)
        )
        sides: Any = [self.side.apply(p, x) for p, x in zip(coupling, batch[:2], strict=True)]
        embeddings = [x.reshape(count, self.classes, _EMBEDDING) for x in sides]
        logits = jnp.einsum("iye,jye->ijy", *embeddings) / math.sqrt(_EMBEDDING)
        log_q = couple(logits, jnp.log(first), jnp.log(second))
        entropy = jax.scipy.special.entr(prior).sum()
        of_pairs = jax.nn.logsumexp(log_q, axis=2, keepdims=True)
        least = entropy + (jnp.exp(log_q) * (log_q - of_pairs)).sum()
        whole = entropy + log_both[jnp.arange(count), batch.target].mean()
        # I(X; Y) of the marginals that the coupling has, so that the parts belong together.
        singles = [entropy + (p * jnp.log(p * count)).sum() for p in (first, second)]
        return singles[0], singles[1], least, whole


def _fit(
    compute_loss: Any,
    params: Any,
    *,
    examples: PairedExamples,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: Array,
) -> Any:
    """Minimizes a loss of random batches."""

    def step(carry: Any, number: Int[Array, ""]) -> tuple[Any, None]:
        params, state = carry
        rows = jax.random.choice(
            jax.random.fold_in(key, number), len(examples.target), (batch_size,), replace=False
        )
        batch = jax.tree.map(lambda x: x[rows], examples)
        gradient = jax.grad(compute_loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))[0])
    return run((params, optimizer.init(params)))[0]

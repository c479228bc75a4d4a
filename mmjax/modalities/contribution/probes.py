"""Linear probes: how much each encoder of a trained model tells about the tasks by itself.

A probe is a new linear head on the mean of one encoder's tokens. A modality that joint training has
neglected has a probe below that of the same encoder trained alone. Source: Huang et al., ICML 2022;
Alain and Bengio, 2016.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from mmjax.data.dataset import Dataset, get_split
from mmjax.modalities.contribution.subset_metrics import (
    ExampleRecords,
    record_examples,
)
from mmjax.model import Model
from mmjax.runs.examples import iterate_labeled_examples
from mmjax.runs.prediction.embeddings import make_embed_step
from mmjax.runs.trained import Trained
from mmjax.types import Batch

PENALTIES = (1e-5, 1e-3, 1e-1)
"""Factors of half the squared weights beside the mean loss; the best one on validation is taken."""
_STEPS = 100  # of L-BFGS


class ProbeExamples(NamedTuple):
    """A split as probes see it.

    Attributes:
      features: {modality: Float[seeds n d]}, mean tokens; zeros where it is missing.
      batch: presence, targets and labels of the examples, without inputs.
    """

    features: Mapping[str, np.ndarray]
    batch: Batch


def list_probed_tasks(model: Model) -> list[str]:
    """Lists the tasks whose heads take one vector per example, which alone have linear probes."""
    return [t for t in sorted(model.heads) if model.heads[t].features != "tokens"]


def probe_encoders(trained: Trained, data: Dataset, split: str = "test") -> list[dict[str, Any]]:
    """Fits a linear probe per modality and task on the training split, and evaluates it.

    Features are standardized by the training split; the penalty is selected on the validation
    split. Only the examples that have the modality take part.

    Args:
      trained: the model, of one or several seeds.
      data: its data set.
      split: the split of the returned statistics.

    Returns:
      Per seed {modality: statistics of every example}, as of `record_examples`; they have only the
      probed tasks.
    """
    tasks = list_probed_tasks(trained.model)
    if not tasks:
        return [{} for _ in trained.seeds]
    parts = {
        name: embed_split(trained, data, name)
        for name in dict.fromkeys(["train", "validation", split])
    }
    fits: list[dict[str, Any]] = [{} for _ in trained.seeds]
    for modality in sorted(trained.model.encoders):
        chosen = [
            _Examples(parts[name].features[modality], _restrict_to(parts[name].batch, modality))
            for name in ("train", "validation", split)
        ]
        outputs = {}
        for task in tasks:
            head = make_linear_head(trained.model.heads[task])
            outputs[task] = _fit_probes(head, task, *chosen)
        for i, fit in enumerate(fits):
            of_seed = {task: values[i] for task, values in outputs.items()}
            fit[modality] = _record_probes(trained.model, of_seed, chosen[-1].batch, tasks)
    return fits


def embed_split(trained: Trained, data: Dataset, split: str) -> ProbeExamples:
    """Computes the mean tokens of every encoder and seed for all examples in `split`."""
    step, members = make_embed_step(trained.model), trained.list_seed_variables()
    features: dict[str, list[Any]] = {m: [] for m in trained.model.encoders}
    batches = []
    for batch in iterate_labeled_examples(trained.spec, get_split(data, split), trained.batch_size):
        of_seeds = [step(variables, *batch[:3]).modalities for variables in members]
        stacked = jax.device_get(jax.tree.map(lambda *x: jnp.stack(x), *of_seeds))
        for m, values in stacked.items():
            # A missing modality has NaN features, which no mask could keep out of the gradient.
            features[m].append(np.where(batch.present[m][None, :, None], values, 0))
        batches.append(batch._replace(inputs={}, lengths={}))
    whole = jax.tree.map(lambda *x: np.concatenate(x), *batches)
    return ProbeExamples({m: np.concatenate(x, axis=1) for m, x in features.items()}, whole)


def make_linear_head(head: nn.Module) -> nn.Module:
    """Returns a head without hidden layers."""
    return head.clone(hidden=()) if getattr(head, "hidden", ()) else head


def _restrict_to(batch: Batch, modality: str) -> Batch:
    """Takes the labels away from examples that lack a modality."""
    present = batch.present[modality]
    return batch._replace(labeled={t: x & present for t, x in batch.labeled.items()})


class _Examples(NamedTuple):
    """Features [seeds n d] of one modality, and the labels of the examples that have it."""

    features: np.ndarray
    batch: Batch


def _fit_probes(
    head: nn.Module, task: str, train: _Examples, validation: _Examples, test: _Examples
) -> Float[np.ndarray, "s n ..."]:
    """Fits a probe per seed with every penalty, and returns the predictions of the best ones."""
    rows = train.batch.labeled[task]
    known = train.features[:, rows] if rows.any() else train.features
    mean, scale = known.mean(axis=1, keepdims=True), known.std(axis=1, keepdims=True)
    # A feature that never varies tells nothing.
    scale = np.where(scale > 1e-6, scale, 1.0)

    def prepare(examples: _Examples) -> tuple[Array, Array, Array]:
        features = jnp.asarray((examples.features - mean) / scale, jnp.float32)
        batch = examples.batch
        return features, jnp.asarray(batch.targets[task]), jnp.asarray(batch.labeled[task])

    (x, *labels), (x_valid, *labels_valid), (x_test, *_) = map(prepare, (train, validation, test))

    @jax.jit
    def fit_seeds(of_seeds: Any) -> Array:
        return jax.lax.map(
            lambda xs: _fit_and_predict(head, (xs[0], *labels), (xs[1], *labels_valid), xs[2]),
            of_seeds,
        )

    return np.asarray(fit_seeds((x, x_valid, x_test)))


def _fit_and_predict(head: Any, train: Any, validation: Any, x_test: Array) -> Array:
    """Fits a probe with every penalty; predicts by the one with the least validation loss."""
    params = jax.eval_shape(head.init, jax.random.key(0), train[0][:1])
    # The problem is convex: any start will do.
    params = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)

    def compute_loss(params: Any, x: Array, y: Array, labeled: Bool[Array, " n"]) -> Array:
        # A missing label may be anything, and its loss would have a NaN gradient.
        safe = jnp.where(labeled.reshape(-1, *(1,) * (y.ndim - 1)), y, jnp.zeros_like(y))
        losses = jax.vmap(head.example_loss)(head.apply(params, x), safe)
        return jnp.where(labeled, losses, 0).sum() / jnp.maximum(labeled.sum(), 1)

    def fit(penalty: Array) -> Any:
        def objective(params: Any) -> Array:
            squares = [(w**2).sum() for w in jax.tree.leaves(params) if w.ndim > 1]
            return compute_loss(params, *train) + penalty / 2 * sum(squares)

        optimizer = optax.lbfgs()
        gradient_of = optax.value_and_grad_from_state(objective)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            value, gradient = gradient_of(params, state=state)
            updates, state = optimizer.update(
                gradient, state, params, value=value, grad=gradient, value_fn=objective
            )
            return (optax.apply_updates(params, updates), state), None

        (fitted, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, _STEPS)
        return fitted

    fitted = jax.lax.map(fit, jnp.asarray(PENALTIES))
    losses = jax.vmap(lambda p: compute_loss(p, *validation))(fitted)
    best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
    return head.apply(jax.tree.map(lambda p: p[best], fitted), x_test)


def _record_probes(
    model: Model, outputs: dict[str, Any], batch: Batch, tasks: Sequence[str]
) -> ExampleRecords:
    """Computes the statistics of the probed tasks alone."""
    probed = model.clone(heads={t: model.heads[t] for t in tasks})
    return jax.device_get(jax.jit(lambda o, b: record_examples(probed, o, b))(outputs, batch))

"""A trained model that predicts on new examples."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.data.dataset import Dataset, get_split
from mmjax.data.spec import Spec, make_spec, select_spec
from mmjax.experiment import Experiment
from mmjax.model import Model
from mmjax.runs.examples import iterate_examples, iterate_labeled_examples, pad_batch
from mmjax.runs.prediction.embeddings import Embeddings, make_embed_step
from mmjax.runs.prediction.prediction_table import (
    PREDICTION_OF_KIND,
    Predictions,
    concatenate_predictions,
)
from mmjax.runs.prediction.predictions import Outputs
from mmjax.train.evaluation import summarize_statistics
from mmjax.train.steps.eval_step import compute_statistics
from mmjax.train.steps.forward import compute_features, compute_predictions, get_task_names
from mmjax.types import Batch, Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model of one seed, or an ensemble of several seeds, as `mmjax.load` returns it.

    An ensemble predicts by the mean of its members: of probabilities (per class, or of exceeding a
    class of an order), or of values.

    Attributes:
      model: the model, without auxiliary objectives.
      spec: the inputs and outputs, and what data fitting learned; see `mmjax.data.spec`.
      seeds: the seeds.
      variables: {"params": parameters} and other collections for `model.apply`, as NumPy arrays;
        with a leading axis of the seeds if there are several.
      compute_dtype: type of the activations.
      batch_size: examples per step, by default.
      make_experiment: makes the whole experiment.
    """

    model: Model
    spec: Spec
    seeds: tuple[int, ...]
    variables: Mapping[str, Any]
    compute_dtype: str
    batch_size: int
    make_experiment: Callable[[], Experiment]

    @property
    def params(self) -> Any:
        """Returns the parameters; with a leading axis of the seeds if there are several."""
        return self.variables["params"]

    def list_seed_variables(self) -> list[Variables]:
        """Lists the variables of each seed, in the order of `seeds`."""
        variables, count = dict(self.variables), len(self.seeds)
        if count == 1:
            return [variables]
        return [jax.tree.map(lambda x, i=i: x[i], variables) for i in range(count)]

    def describe_seeds(self) -> str:
        """Describes the seeds: "seed 3", or "the ensemble of seeds 0, 1"."""
        seeds = ", ".join(map(str, self.seeds))
        return f"the ensemble of seeds {seeds}" if len(self.seeds) > 1 else f"seed {seeds}"

    @functools.cached_property
    def experiment(self) -> Experiment:
        """Builds the whole experiment on access, which requires the data."""
        return self.make_experiment()

    def predict(self, examples: Any, *, batch_size: int | None = None) -> Predictions:
        """Predicts every task.

        Args:
          examples: a dictionary {column or modality: values}, a DataFrame, the path of a .csv,
            .parquet or .npz file, a `Batch`, or a split of a data set. A modality may be absent.
          batch_size: examples per step; None: that of evaluation.

        Raises:
          ValueError: naming the example and what does not fit.

        Example:
          >>> trained = mmjax.load("runs/digits", seed=0)  # doctest: +SKIP
          >>> trained.predict({"text": ["two"]})["digit"].names  # doctest: +SKIP
          ['2']
        """
        parts = self.iterate_predictions(examples, batch_size=batch_size)
        return concatenate_predictions(list(parts))

    def iterate_predictions(
        self, examples: Any, *, batch_size: int | None = None
    ) -> Iterator[Predictions]:
        """Yields the predictions of one batch after the other; see `predict`."""
        size, is_empty = self.batch_size if batch_size is None else batch_size, True
        for batch, keys in iterate_examples(self.spec, examples, size):
            is_empty = False
            yield dataclasses.replace(self.interpret_batch(batch, size), keys=keys)
        if is_empty:
            raise ValueError("no examples were given.")

    def compute_outputs(self, batch: Batch, size: int | None = None) -> dict[str, np.ndarray]:
        """Computes the outputs of the heads, such as logits, averaged over an ensemble.

        Args:
          batch: prepared inputs of the model's modalities.
          size: number of examples to which the batch is padded, so that it is compiled once.
        """
        count = batch.size
        inputs = pad_batch(batch, size or count)[:3]
        outputs = jax.device_get(self._predict_step(dict(self.variables), *inputs))
        return {task: values[:count] for task, values in outputs.items()}

    def interpret_batch(self, batch: Batch, size: int | None = None) -> Predictions:
        """Predicts on prepared inputs; see `compute_outputs` for the arguments."""
        outputs = self.compute_outputs(batch, size)
        valid = np.any([np.asarray(x) for x in batch.present.values()], axis=0)
        predictions = {}
        for task in get_task_names(self.model):
            spec = self.spec.tasks[task]
            lengths = self._find_lengths(task, batch, outputs[task].shape[1:])
            values = Outputs(outputs[task], valid, lengths)
            predictions[task] = PREDICTION_OF_KIND[spec.kind].interpret(spec, values)
        return Predictions(predictions)

    def evaluate(self, data: Any, split: str = "test") -> dict[str, float]:
        """Computes the metrics {"TASK/METRIC": value} that `mmjax evaluate` prints.

        The metrics of an ensemble are those of its mean predictions. The split is kept in memory.

        Args:
          data: a data set, one of its splits, or a `Batch` with targets.
          split: name of the split, for a data set.

        Raises:
          ValueError: the split is unknown or lacks a task, or an example does not fit.
        """
        if isinstance(data, Dataset):
            data = get_split(data, split)
        batches, outputs = [], []
        for batch in iterate_labeled_examples(self.spec, data, self.batch_size):
            batches.append(batch._replace(inputs={}, lengths={}))
            outputs.append(self.compute_outputs(batch, self.batch_size))
        if not batches:
            raise ValueError("no examples were given.")
        whole, predictions = (
            jax.tree.map(lambda *x: jnp.concatenate(x), *parts) for parts in (batches, outputs)
        )
        statistics = jax.device_get(compute_statistics(self.model, predictions, whole))
        return summarize_statistics(self.model, statistics)

    def embed(self, examples: Any, *, batch_size: int | None = None) -> Embeddings:
        """Computes the representations of examples, in float32; see `predict` for the arguments.

        Raises:
          ValueError: also if there are several seeds, whose representations have nothing in common.
        """
        size = self.batch_size if batch_size is None else batch_size
        parts = [self.embed_batch(b, size) for b, _ in iterate_examples(self.spec, examples, size)]
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    def embed_batch(self, batch: Batch, size: int | None = None) -> Embeddings:
        """Computes the representations of prepared inputs; see `compute_outputs`."""
        if len(self.seeds) > 1:
            raise ValueError(
                f"the representations of seeds {', '.join(map(str, self.seeds))} have nothing in "
                "common; load one seed to embed."
            )
        count = batch.size
        inputs = pad_batch(batch, size or count)[:3]
        embeddings = jax.device_get(self._embed_step(self.variables, *inputs))
        return jax.tree.map(lambda x: x[:count], embeddings)

    def compute_mean_outputs(
        self, variables: Any, inputs: Any, present: Any, lengths: Any
    ) -> dict[str, Any]:
        """Computes the outputs of the heads, averaged over an ensemble: a pure function.

        Args:
          variables: those of the attribute `variables`.
          inputs: the inputs of a `Batch` of the model's modalities.
          present: as in the `Batch`.
          lengths: as in the `Batch`.
        """
        batch = Batch(inputs, present, lengths, {}, {})
        if len(self.seeds) == 1:
            return self.compute_member_outputs(variables, batch)
        outputs = jax.vmap(self.compute_member_outputs, (0, None))(variables, batch)
        return self.average_outputs(outputs)

    def compute_member_outputs(self, variables: Any, batch: Batch) -> dict[str, Any]:
        """Computes the outputs of the heads with the variables of one seed: a pure function."""
        options: Any = {"compute_dtype": self.compute_dtype, "train": False}
        features, _ = compute_features(self.model, variables, batch, **options)
        return compute_predictions(self.model, variables, features, **options)[0]

    def average_outputs(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Averages outputs {task: [seeds, b, ...]} as the kinds of the tasks do."""
        kinds = {task: PREDICTION_OF_KIND[self.spec.tasks[task].kind] for task in outputs}
        return {task: kinds[task].average(values) for task, values in outputs.items()}

    @functools.cached_property
    def _predict_step(self) -> Callable[..., dict[str, Any]]:
        return jax.jit(self.compute_mean_outputs)

    @functools.cached_property
    def _embed_step(self) -> Callable[..., Embeddings]:
        return make_embed_step(self.model)

    def _find_lengths(self, task: str, batch: Batch, shape: Sequence[int]) -> np.ndarray | None:
        """Finds the lengths of the sequences whose tokens a task labels, if there are any."""
        modality = getattr(self.model.heads[task], "tokens", None)
        if modality is None:
            steps = [m for m in batch.lengths if self.spec.modalities[m].shape[:1] == shape[:1]]
            modality = steps[0] if len(steps) == 1 else None
        return None if modality not in batch.lengths else np.asarray(batch.lengths[modality])


def make_trained(experiment: Experiment, variables: Variables, seeds: Sequence[int]) -> Trained:
    """Makes a trained model of an experiment and variables, such as those that `fit` returns.

    Args:
      experiment: the experiment.
      variables: {"params": parameters, and other collections}, with a leading axis of the seeds.
      seeds: one per set of parameters.

    Example:
      >>> result = mmjax.fit(experiment, Path("runs/digits"))  # doctest: +SKIP
      >>> trained = make_trained(experiment, result.best, seeds=[0])  # doctest: +SKIP
    """
    variables = jax.device_get(variables)
    if len(seeds) == 1:
        variables = jax.tree.map(lambda x: x[0], variables)
    model = experiment.model
    spec = make_spec(experiment.data, model.heads, model.encoders)
    return Trained(
        model=model,
        spec=select_spec(spec, model.encoders, model.heads),
        seeds=tuple(seeds),
        variables=variables,
        compute_dtype=experiment.compute_dtype,
        batch_size=experiment.eval_batch_size,
        make_experiment=lambda: experiment,
    )

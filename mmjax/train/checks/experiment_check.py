"""The check of an experiment before anything is compiled: its parts and its data must fit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.checks.validate import validate_split
from mmjax.data.checks.value_ranges import check_same_scale, measure_value_range
from mmjax.data.dataset import Arrays, Dataset, split_parts
from mmjax.data.normalize import make_validity_mask
from mmjax.data.sampling.example_weights import has_only_zero_weights
from mmjax.experiment import Experiment
from mmjax.freezing import check_lora, check_trainable, trace_trained_params
from mmjax.inspection.model_check import Trace, check_model_fits_batch
from mmjax.inspection.model_parts import make_batch_shapes
from mmjax.metrics.direction import check_extra_metrics
from mmjax.model import Model
from mmjax.train.checks.balancer_check import check_balancer
from mmjax.train.checks.memory_check import check_accumulate, check_remat
from mmjax.train.checks.monitor_check import check_monitor
from mmjax.train.checks.objective_check import check_objectives
from mmjax.train.checks.optimizer_check import (
    accumulates_gradients,
    check_equal_counts,
    check_optimizer,
    list_weighed_tasks,
)
from mmjax.train.evaluation import is_higher_better
from mmjax.train.frozen_tokens import check_cache_frozen
from mmjax.train.hardware.device_groups import check_divisible_by_devices
from mmjax.train.splits import Splits
from mmjax.train.steps.initial_variables import check_initial_weights


def check_experiment(experiment: Experiment, devices: int, *, splits_checked: bool = False) -> None:
    """Refuses an experiment whose parts or data do not fit, before anything is compiled.

    Args:
      experiment: the experiment.
      devices: number of devices that will train it.
      splits_checked: whether the splits of its data were checked with another experiment.

    Raises:
      ValueError: naming the part, its value and what would fit.
    """
    data, model = experiment.data, experiment.model
    _check_names(data, model)
    if not splits_checked:
        _check_splits(data)
    _check_scales(data, model)
    rates = experiment.modality_dropout
    _check_modalities("augment", experiment.augment, data)
    _check_modalities("modality_dropout", rates if isinstance(rates, Mapping) else {}, data)
    _check_encoders_and_heads(data, model)
    check_objectives(model, data)
    _check_token_ids(data, model)
    Splits(experiment, ()).groups()  # refuses a sampler that does not fit
    examples = len(data.splits["train"])
    if experiment.batch_size > examples:
        raise ValueError(
            f"batch_size={experiment.batch_size} is more than the {examples} training examples."
        )
    check_divisible_by_devices("batch_size", experiment.batch_size, devices)
    check_divisible_by_devices("eval_batch_size", experiment.eval_batch_size, devices)
    parts = experiment.balancer.parts
    check_accumulate(experiment.batch_size, experiment.accumulate, devices, parts)
    is_higher_better(model, experiment.monitor)
    # Last, since tracing the model takes the longest.
    batch = make_batch_shapes(Splits(experiment, ()).example(), experiment.batch_size)
    trace = check_model_fits_batch(model, batch)
    check_monitor(experiment, _get_predictions(trace))
    shapes = trace.variables
    check_initial_weights(experiment.init, shapes)
    check_remat(model.remat, shapes["params"])
    if experiment.trainable is not None:
        check_trainable(experiment.trainable, shapes["params"])
    check_lora(experiment.lora, shapes["params"])
    if experiment.cache_frozen:
        check_cache_frozen(experiment, shapes, batch)
    params = shapes["params"]
    if experiment.has_frozen:
        params = trace_trained_params(shapes, experiment.trainable, experiment.lora)
    check_balancer(experiment, trace, params)
    opt_state = check_optimizer(experiment.optimizer, params)
    train = data.splits["train"]
    if accumulates_gradients(opt_state):
        # What is streamed is known when it is read: see `check_label_counts`.
        unknown = np.ones(1, bool)
        known = train.batch.labeled if isinstance(train, Arrays) else {}
        labeled = {task: known.get(task, unknown) for task in model.heads}
        check_equal_counts(labeled, list_weighed_tasks(model, batch))


def _get_predictions(trace: Trace) -> dict[str, Any]:
    """Returns {task: shape of the predictions} of the first call of each head."""
    predictions: dict[str, Any] = {}
    for call in trace.calls.values():
        if call.part.kind == "heads":
            predictions.setdefault(call.part.path.removeprefix("heads."), call.output)
    return predictions


def _check_names(data: Dataset, model: Model) -> None:
    for kind, names, known in (
        ("encoder", model.encoders, data.modalities),
        ("head", model.heads, data.tasks),
    ):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"The model has the {kind} {name!r}, but the data set {data.name!r} has only "
                    f"{sorted(known)}."
                )


def _check_splits(data: Dataset) -> None:
    for name in ("train", "validation", "test"):
        if name not in data.splits:
            raise ValueError(f"{data.name} has no split {name!r}, only {sorted(data.splits)}.")
        if not len(data.splits[name]):
            raise ValueError(f"The split {name!r} of {data.name} is empty.")
        if isinstance(source := data.splits[name], Arrays):
            validate_split(data.name, name, source.batch, data.modalities, data.tasks)
            for task in data.tasks if name == "train" else ():
                if has_only_zero_weights(source.batch, task):
                    raise ValueError(
                        f"{data.name}, split {name!r}: task {task!r} has only labels of weight 0. "
                        "There is nothing to learn; leave the task out."
                    )


def _check_scales(data: Dataset, model: Model) -> None:
    # Sources that read on demand were compared when they were made.
    batches = {s: v.batch for s, v in data.splits.items() if isinstance(v, Arrays)}
    used = {name: data.modalities[name] for name in model.encoders}
    flat = {split: split_parts(batch, used) for split, batch in batches.items()}
    specs = next(iter(flat.values()))[1] if flat else {}
    for name, spec in specs.items():
        ranges = {
            split: measure_value_range(np.asarray(batch.inputs[name]), batch.present[name])
            for split, (batch, _) in flat.items()
        }
        check_same_scale(data.name, name, ranges, sequence=spec.sequence)


def _check_token_ids(data: Dataset, model: Model) -> None:
    """Refuses tokens in memory for which an encoder has no vector."""
    for name, encoder in model.encoders.items():
        size = getattr(encoder, "vocabulary", None)
        for split, source in data.splits.items():
            if not isinstance(size, int) or not isinstance(source, Arrays):
                continue
            batch, sequence = source.batch, data.modalities[name].sequence
            x = np.asarray(batch.inputs[name])
            if x.dtype.kind not in "iu":
                continue  # the encoder refuses it
            real = make_validity_mask(
                np.asarray(batch.present[name]),
                np.asarray(batch.lengths[name]) if sequence else None,
                data.modalities[name],
            )
            real = real.reshape(*real.shape, *(1,) * (x.ndim - real.ndim))
            bad = np.argwhere(real & ((x < 0) | (x >= size)))
            if len(bad):
                row, largest = int(bad[0][0]), int(x.max(where=real, initial=0))
                fix = "no token is negative"
                if largest >= size:
                    fix = f"set vocabulary to {largest + 1}"
                raise ValueError(
                    f"{data.name}, split {split!r}: modality {name!r} has the token "
                    f"{x[tuple(bad[0])]} in row {row}, but its {type(encoder).__name__} has "
                    f"vectors for 0 to {size - 1}; {fix}."
                )


def _check_modalities(field: str, values: Mapping[str, object], data: Dataset) -> None:
    for name in values:
        if name not in data.modalities:
            raise ValueError(
                f"{field} names the modality {name!r}, but the data set {data.name!r} has only "
                f"{sorted(data.modalities)}."
            )


def _check_encoders_and_heads(data: Dataset, model: Model) -> None:
    for name, encoder in model.encoders.items():
        if hasattr(encoder, "example_loss"):
            raise ValueError(
                f"model.encoders.{name} is a {type(encoder).__name__}, which is a head and not an "
                "encoder."
            )
        if hasattr(encoder, "check"):
            encoder.check(data.modalities[name], name)
    for name, head in model.heads.items():
        if not hasattr(head, "example_loss"):
            raise ValueError(f"model.heads.{name} is a {type(head).__name__}, which is not a head.")
        head.check(data.tasks[name], name)
        extra = getattr(head, "extra_metrics", {})
        check_extra_metrics(name, data.tasks[name].kind, extra, head.metrics)

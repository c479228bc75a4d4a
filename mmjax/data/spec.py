"""What a data set learned from its training split, as plain JSON that is stored with a run.

A `Spec` holds all that is needed to turn new examples into a model's inputs, and outputs into names
of classes. It contains no training data and no code. It is written as `spec.json` beside the
checkpoints of every arm.
"""

import dataclasses
import os
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import files
from mmjax.data.dataset import Dataset, Modality, Preparation, Task
from mmjax.data.kinds import INPUT_KINDS
from mmjax.data.normalize import Scale

SPEC_FILE = "spec.json"
_VERSION = 1
_INPUT_KINDS = {kind.__name__: kind for kind in INPUT_KINDS}


class Spec(NamedTuple):
    """The inputs and outputs of a data set, without its examples.

    Attributes:
      name: name of the data set.
      modalities: its kinds of input.
      tasks: its prediction targets.
      preparations: {modality: how its values become arrays}.
      table_options: options with which its tables were read, such as the separator.
      heads: {task: {field: number}} of the trained heads, some of which come from the labels.
      encoders: {modality: {field: numbers}} of the encoders that learn from the inputs.
      examples: {split: number of its examples}; {} in runs of an older mmjax.
    """

    name: str
    modalities: Mapping[str, Modality]
    tasks: Mapping[str, Task]
    preparations: Mapping[str, Preparation]
    table_options: Mapping[str, Any] = types.MappingProxyType({})
    heads: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({})
    encoders: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({})
    examples: Mapping[str, int] = types.MappingProxyType({})


def make_spec(
    data: Dataset,
    heads: Mapping[str, Any] = types.MappingProxyType({}),
    encoders: Mapping[str, Any] = types.MappingProxyType({}),
) -> Spec:
    """Collects what a data set learned; plain arrays get the types of one training example.

    Args:
      data: the data set.
      heads: {task: head} of the model.
      encoders: {modality: encoder} of the model.

    Example:
      >>> from mmjax.data import interactions
      >>> make_spec(interactions(train=64)).preparations["a"].dtype
      'float32'
    """
    preparations = dict(data.preparations)
    unknown = [m for m in data.modalities if m not in preparations]
    if unknown:
        example = data.splits["train"].take(np.arange(1))
        for m in unknown:
            preparations[m] = Preparation(dtype=str(np.asarray(example.inputs[m]).dtype))
    options = data.facts.get("table_options", {})
    head_numbers = {task: _list_numbers(head) for task, head in heads.items()}
    learners = {m: e for m, e in encoders.items() if hasattr(e, "learn_from_inputs")}
    encoder_numbers = {m: _list_numbers(encoder) for m, encoder in learners.items()}
    modalities, tasks = dict(data.modalities), dict(data.tasks)
    return Spec(
        name=data.name,
        modalities=modalities,
        tasks=tasks,
        preparations=preparations,
        table_options=options,
        heads=head_numbers,
        encoders=encoder_numbers,
        examples={split: len(source) for split, source in data.splits.items()},
    )


def select_spec(spec: Spec, modalities: Collection[str], tasks: Collection[str]) -> Spec:
    """Selects what a model reads and predicts.

    Raises:
      ValueError: the model has an encoder or a head that the spec does not describe.
    """
    for part, names, known in (
        ("encoder", modalities, spec.modalities),
        ("head", tasks, spec.tasks),
    ):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"the model has the {part} {name!r}, but the data set {spec.name!r} had only "
                    f"{sorted(known)}."
                )
    return spec._replace(
        modalities={m: spec.modalities[m] for m in modalities},
        tasks={t: spec.tasks[t] for t in sorted(tasks)},
        preparations={m: spec.preparations[m] for m in modalities},
    )


def write_spec(
    directory: Path, data: Dataset, heads: Mapping[str, Any], encoders: Mapping[str, Any]
) -> None:
    """Writes the spec of a data set, and of a model's parts, into the directory of an arm."""
    spec = make_spec(data, heads, encoders)
    files.write_json(directory / SPEC_FILE, convert_spec_to_json(spec))


def fill_part(part: Any, numbers: Mapping[str, Any]) -> Any:
    """Returns a head or an encoder with the stored numbers in place of what was to be learned."""
    missing = {}
    for name, value in numbers.items():
        if not _holds_numbers(getattr(part, name, value)):
            missing[name] = value
    return part.clone(**missing) if missing else part


def _list_numbers(part: Any) -> dict[str, Any]:
    """Lists the fields of a head or an encoder that are numbers, or tuples of numbers."""
    numbers = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if _holds_numbers(value):
            numbers[field.name] = value
    return numbers


def _holds_numbers(value: Any) -> bool:
    return (
        all(map(_holds_numbers, value))
        if isinstance(value, tuple)
        else isinstance(value, int | float)
    )


def read_spec(directory: Path) -> Spec | None:
    """Reads the spec of an arm; None if an older version stored the run.

    Raises:
      DamagedFileError: it is damaged, or of a later version of mmjax.
    """
    path = directory / SPEC_FILE
    if not path.is_file():
        return None
    stored = files.read_json(path)
    with files.name_damaged_file(path):
        return parse_spec(stored)


def convert_spec_to_json(spec: Spec) -> dict[str, Any]:
    """Converts a spec to dictionaries, lists, strings and numbers.

    Floating-point numbers are stored with all their digits, so that `parse_spec` returns the same.
    """
    return {
        "version": _VERSION,
        "name": spec.name,
        "modalities": {m: modality._asdict() for m, modality in spec.modalities.items()},
        "tasks": {t: task._asdict() for t, task in spec.tasks.items()},
        "preparations": {m: _convert_preparation(p) for m, p in spec.preparations.items()},
        "table_options": dict(spec.table_options),
        "heads": {task: dict(numbers) for task, numbers in spec.heads.items()},
        "encoders": {m: dict(numbers) for m, numbers in spec.encoders.items()},
        "examples": dict(spec.examples),
    }


def parse_spec(stored: Mapping[str, Any]) -> Spec:
    """Returns the spec that `convert_spec_to_json` converted.

    Raises:
      LookupError, TypeError, ValueError: it is not one.

    Example:
      >>> from mmjax.data import interactions
      >>> spec = make_spec(interactions(train=64))
      >>> parse_spec(convert_spec_to_json(spec)) == spec
      True
    """
    if stored["version"] != _VERSION:
        raise ValueError(
            f"it has version {stored['version']!r}, and this mmjax reads version {_VERSION}"
        )
    preparations = {m: _parse_preparation(p) for m, p in stored["preparations"].items()}
    modalities = {}
    for m, fields in stored["modalities"].items():
        p = preparations[m]
        # The kind says which subclass of `Modality` it is.
        declared = p.kind.declare_modality(p.learned) if p.kind else Modality(())
        modalities[m] = declared._replace(**_convert_to_tuples(fields))
    tasks = {t: Task(**_convert_to_tuples(fields)) for t, fields in stored["tasks"].items()}
    options, heads = dict(stored["table_options"]), _convert_to_tuples(stored["heads"])
    encoders = _convert_to_tuples(stored.get("encoders", {}))
    examples = {split: int(number) for split, number in stored.get("examples", {}).items()}
    return Spec(stored["name"], modalities, tasks, preparations, options, heads, encoders, examples)


def _convert_preparation(preparation: Preparation) -> dict[str, Any]:
    kind, scale = preparation.kind, preparation.scale
    named = None if kind is None else _convert_kind(kind)
    arrays = None if scale is None else {k: v.tolist() for k, v in scale._asdict().items()}
    return preparation._asdict() | {
        "kind": named,
        "learned": dict(preparation.learned),
        "scale": arrays,
    }


def _convert_kind(kind: Any) -> dict[str, Any]:
    fields = {"type": type(kind).__name__, **kind._asdict()}
    return {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in fields.items()}


def _parse_preparation(fields: Mapping[str, Any]) -> Preparation:
    kind, scale = fields["kind"], fields["scale"]
    if kind is not None:
        kind = dict(kind)
        kind = _INPUT_KINDS[kind.pop("type")](**_convert_to_tuples(kind))
    if scale is not None:
        scale = Scale(**{name: np.array(values, np.float64) for name, values in scale.items()})
    np.dtype(fields["dtype"])  # refuses names of no type
    return Preparation(**{**fields, "kind": kind, "scale": scale})


def _convert_to_tuples(value: Any) -> Any:
    """Converts the lists of JSON to the tuples that they were."""
    if isinstance(value, list):
        return tuple(map(_convert_to_tuples, value))
    if isinstance(value, Mapping):
        return {key: _convert_to_tuples(item) for key, item in value.items()}
    return value

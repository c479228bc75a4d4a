"""Summaries of models: type, shapes, parameters and floating-point operations of each part."""

import functools
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax

from mmjax.data.augment import make_example_augmentation
from mmjax.experiment import Experiment
from mmjax.inspection.flops import count_flops
from mmjax.inspection.model_check import Call, trace_model
from mmjax.inspection.model_parts import make_batch_shapes, make_key_shape
from mmjax.inspection.part_operations import count_operations_by_part
from mmjax.model import Model
from mmjax.pretrained.lora import drop_lora_factors
from mmjax.printing.console import print_paragraph, print_table, print_text
from mmjax.printing.escapes import escape_markdown, format_markdown_table
from mmjax.printing.formatting import format_example_shapes, format_module, format_with_unit
from mmjax.printing.table_layout import NO_BREAK_SPACE
from mmjax.train.splits import Splits
from mmjax.train.steps.state import init_frozen_variables, init_state
from mmjax.train.steps.train_step import TrainStep, make_train_step
from mmjax.types import Batch, TrainState, Variables

_ShapeTree = Mapping[str, Any]  # parameters as jax.ShapeDtypeStructs
_HEADER = ("part", "module", "input", "output", "parameters", "FLOPs")


class SummaryRow(NamedTuple):
    """One part of a model, or a total.

    Attributes:
      part: its path in the model, such as "encoders.speech".
      module: its type and attributes.
      copies: number of copies, each with its own parameters.
      input: shapes of the input of one copy for one example.
      output: shapes of the output of one copy for one example.
      parameters: number of parameters of all copies.
      flops: floating-point operations per example of all copies.
    """

    part: str
    module: str
    copies: int
    input: str
    output: str
    parameters: int
    flops: int


class Summary(NamedTuple):
    """Summary of a model.

    Attributes:
      rows: the parts, then their sum "prediction"; the auxiliary objectives, which only training
        needs; and "training step" if it is known how the model is trained.
      notes: how to read the shapes and operations.
    """

    rows: tuple[SummaryRow, ...]
    notes: tuple[str, ...]


def summarize_experiment(experiment: Experiment) -> Summary:
    """Summarizes an experiment's model and training step, without running them.

    Raises:
      ValueError: the parts of the model do not fit together.
    """
    e = experiment
    batch = make_batch_shapes(Splits(e, ()).example(), e.batch_size)
    step = _make_step(e)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows, notes = summarize_model(e.model, batch)
        state, frozen = _trace_start(e, batch)
        operations = count_flops(step, state, batch, frozen)
    trained = _count_parameters(state.params)
    training = _make_total_row("training step", trained, operations / e.batch_size)
    if frozen is not None:
        count = _count_parameters(drop_lora_factors(frozen.get("params", {})))
        notes += (f"{trained:,} parameters train, and {count:,} are frozen.",)
    notes += (
        "FLOPs of the training step include forward and backward passes, balancer and optimizer, "
        f"divided by its {e.batch_size} examples.",
        *sorted({f"{w.message}." for w in caught}),
    )
    return Summary((*rows, training), notes)


def _trace_start(e: Experiment, batch: Batch) -> tuple[TrainState, Variables | None]:
    """Returns the shapes of the first state, and of what is frozen; None if everything trains."""
    parts: Any = {"trainable": e.trainable, "lora": e.lora}
    start = functools.partial(init_state, e.model, e.optimizer, e.balancer, **parts)
    # Only shapes: neither parameters nor optimizer state are allocated.
    state = jax.eval_shape(start, batch, make_key_shape())
    freeze = functools.partial(init_frozen_variables, e.model, **parts)
    return state, jax.eval_shape(freeze, batch) if e.has_frozen else None


def _make_step(e: Experiment) -> TrainStep:
    """Makes the training step of an experiment on one device."""
    return make_train_step(
        e.model,
        e.optimizer,
        e.balancer,
        augment=make_example_augmentation(e.augment, e.modality_dropout),
        diagnostics=e.diagnostics,
        compute_dtype=e.compute_dtype,
        accumulate=e.accumulate,
    )


def summarize_model(model: Model, batch: Batch) -> Summary:
    """Summarizes a model for batches like this one, without running it.

    Args:
      model: the model.
      batch: arrays, or their shapes. The number of examples matters for operations that are not
        proportional to it, as in contrastive objectives.

    Raises:
      ValueError: the parts of the model do not fit together.
    """
    calls, variables, _ = trace_model(model, batch)
    params = variables["params"]
    operations = count_operations_by_part(model, variables, batch)
    calls_of: dict[str, dict[str, Call]] = {}
    for name, call in calls.items():
        calls_of.setdefault(call.part.path, {})[name] = call
    # Objectives train with the model, but a prediction does not run them.
    parts: list[SummaryRow] = []
    objectives: list[SummaryRow] = []
    # Tokens for missing modalities, and the means of late fusion, belong to the model itself.
    rest = _count_parameters(params)
    for path, part_calls in calls_of.items():
        row = _make_row(part_calls, params, operations, batch.size)
        (objectives if path.startswith("auxiliary.") else parts).append(row)
        rest -= row.parameters
    if rest or operations[""]:
        module = f"Model(missing={model.missing!r})"
        parts.append(_make_total_row("model", rest, operations[""] / batch.size, module))
    total = sum(n for name, n in operations.items() if not name.startswith("auxiliary_"))
    prediction = _make_total_row("prediction", sum(r.parameters for r in parts), total / batch.size)
    note = (
        "Shapes and FLOPs are per example, with sequences at their padded length; n×d means n "
        "tokens. FLOPs are those of a forward pass at test time."
    )
    return Summary((*parts, prediction, *objectives), (note,))


def _make_row(
    calls: Mapping[str, Call],
    params: _ShapeTree,
    operations: Mapping[str, int],
    examples: int,
) -> SummaryRow:
    """Makes the row of one part from its calls {name of its parameters: call}."""
    first = next(iter(calls.values()))
    return SummaryRow(
        part=first.part.path,
        module=format_module(first.part.module),
        copies=sum(call.part.copies for call in calls.values()),
        input=format_example_shapes(first.input),
        output=format_example_shapes(first.output),
        parameters=sum(_count_parameters(params.get(name, {})) for name in calls),
        flops=round(sum(operations[name] for name in calls) / examples),
    )


def _make_total_row(part: str, parameters: int, operations: float, module: str = "") -> SummaryRow:
    """Makes a row without shapes."""
    return SummaryRow(part, module, 1, "", "", parameters, round(operations))


def _count_parameters(params: Any) -> int:
    """Counts the parameters of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _format_cells(rows: Iterable[SummaryRow]) -> list[list[str]]:
    """Formats the rows as cells of text."""
    cells = []
    for r in rows:
        module = f"{r.copies} × {r.module}" if r.copies > 1 else r.module
        numbers = [f"{r.parameters:,}", format_with_unit(r.flops)]
        cells.append([r.part, module, r.input, r.output, *numbers])
    return cells


def format_summary_markdown(summary: Summary) -> str:
    """Formats the table in Markdown, followed by its notes."""
    rows = [list(_HEADER), *_format_cells(summary.rows)]
    table = format_markdown_table(rows, 4, escape=True)
    return f"{table}\n{' '.join(summary.notes)}\n"


def print_summary(summary: Summary, title: str) -> None:
    """Prints the table, as Markdown if the output is not a terminal."""
    if not sys.stdout.isatty():
        return print_text(f"### {escape_markdown(title)}\n\n{format_summary_markdown(summary)}")
    rows = _format_cells(summary.rows)
    for row in rows:
        # Keeps a name and its shape on one line: only the spaces after commas may break it.
        row[2:4] = [re.sub("(?<!,) ", NO_BREAK_SPACE, shapes) for shapes in row[2:4]]
    print_table([list(_HEADER), *rows], title, words=4)
    print_text()
    print_paragraph(" ".join(summary.notes))

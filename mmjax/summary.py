"""A model's summary: the type, the shapes, the parameters and the operations of every part."""

import collections
import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from mmjax.console import NO_BREAK, print_paragraph, print_table, print_text
from mmjax.data.augment import augmentation
from mmjax.escapes import escape_markdown, format_markdown_table
from mmjax.experiment import Experiment
from mmjax.flops import flops, flops_by_scope
from mmjax.formatting import described, example_shapes, with_unit
from mmjax.model import Model, identity
from mmjax.model_check import Call, Part, key_shape, parts_of, resized, shapes, trace, watched
from mmjax.train.splits import Splits
from mmjax.train.step import init_state, make_train_step
from mmjax.types import Batch

Shapes = Mapping[str, Any]  # parameters as jax.ShapeDtypeStructs
HEADER = ("part", "module", "input", "output", "parameters", "FLOPs")


class Row(NamedTuple):
    """One part of a model, or all of it.

    Attributes:
      part: where it is in the model, such as "encoders.speech".
      module: its type and attributes.
      copies: how many of it there are, each with parameters of its own.
      input: shapes of what one of them gets for one example.
      output: shapes of what it returns.
      parameters: number of parameters, of all copies.
      flops: floating-point operations for one example, of all copies.
    """

    part: str
    module: str
    copies: int
    input: str
    output: str
    parameters: int
    flops: int


class Summary(NamedTuple):
    """What there is to tell of a model.

    Attributes:
      rows: the parts, then "prediction", which is their sum; the auxiliary objectives, which only
        training needs; and "training step", where it is known how the model is trained.
      notes: what a reader must know of the operations.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def summarize(experiment: Experiment) -> Summary:
    """The summary of an experiment's model and of its training step; nothing is computed.

    Raises:
      ValueError: where the parts of the model do not fit.
    """
    e = experiment
    batch = resized(Splits(e, ()).example(), e.batch_size)
    start = functools.partial(init_state, e.model, e.optimizer, e.balancer)
    step = make_train_step(
        e.model,
        e.optimizer,
        e.balancer,
        augment=augmentation(e.augment, e.modality_dropout),
        diagnostics=e.diagnostics,
        compute_dtype=e.compute_dtype,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows, notes = summarize_model(e.model, batch)
        state = jax.eval_shape(start, batch, key_shape())
        operations = flops(step, state, batch)
    training = whole("training step", size(state.params), operations / e.batch_size)
    notes += (
        "Those of the training step are of forward and backward passes, balancer and optimizer, "
        f"divided by its {e.batch_size} examples.",
        *sorted({f"{w.message}." for w in caught}),
    )
    return Summary((*rows, training), notes)


def summarize_model(model: Model, batch: Batch) -> Summary:
    """The summary of a model that meets batches like this one; nothing is computed.

    Args:
      model: the model.
      batch: arrays, or their shapes. Its number of examples matters where operations do not grow
        with it in proportion, as in contrastive objectives.

    Raises:
      ValueError: where the parts of the model do not fit.
    """
    calls, params = trace(model, batch)
    operations = operations_by_name(model, params, batch)
    by_part: dict[str, dict[str, Call]] = {}
    for name, call in calls.items():
        by_part.setdefault(call.part.path, {})[name] = call
    rows = [row(some, params, operations, batch.size) for some in by_part.values()]
    objectives = [r for r in rows if r.part.startswith("auxiliary.")]
    parts = [r for r in rows if not r.part.startswith("auxiliary.")]
    # What stands in for the missing, and the means of late fusion, are the model's own.
    rest = size(params) - sum(r.parameters for r in rows)
    if rest or operations[""]:
        own = f"Model(missing={model.missing!r})"
        parts.append(whole("model", rest, operations[""] / batch.size, own))
    every = sum(n for name, n in operations.items() if not name.startswith("auxiliary_"))
    prediction = whole("prediction", sum(r.parameters for r in parts), every / batch.size)
    note = (
        "Shapes and FLOPs are of one example, with sequences at their padded length; n×d are n "
        "tokens. FLOPs are of a forward pass at test."
    )
    return Summary((*parts, prediction, *objectives), (note,))


def operations_by_name(model: Model, params: Shapes, batch: Batch) -> collections.Counter[str]:
    """Operations on a batch {name of a part's parameters: number}; "" is what no part does."""
    names = list(parts_of(model))
    mark = re.compile(r"mmjax_part_(\d+)")

    def scoped(name: str, part: Part, x: Any, call: Callable[[], Any]) -> Any:
        del part, x
        with jax.named_scope(f"mmjax_part_{names.index(name)}"):
            return call()

    def count(method: Callable[..., Any]) -> collections.Counter[str]:
        counts: collections.Counter[str] = collections.Counter()
        with watched(model, scoped) as seen:
            run = functools.partial(seen.apply, method=method)
            for scopes, number in flops_by_scope(run, {"params": params}, shapes(batch)).items():
                found = mark.search(scopes)
                counts[names[int(found[1])] if found else ""] += number
        return counts

    def predict(model: Model, batch: Batch) -> Any:
        return model(*batch[:3], train=False)

    def objectives(model: Model, batch: Batch) -> Any:
        seen = dict.fromkeys(model.auxiliary, model.see(*batch[:3], train=False)[1])
        return model.objectives(seen, batch, train=False, gather=identity)

    counts = count(predict)
    if model.auxiliary:
        for name, number in count(objectives).items():
            if name.startswith("auxiliary_"):
                counts[name] = number
    return counts


def row(
    calls: Mapping[str, Call],
    params: Shapes,
    operations: Mapping[str, int],
    examples: int,
) -> Row:
    """The row of a part that is called by these names."""
    first = next(iter(calls.values()))
    return Row(
        part=first.part.path,
        module=described(first.part.module),
        copies=sum(call.part.copies for call in calls.values()),
        input=example_shapes(first.input),
        output=example_shapes(first.output),
        parameters=sum(size(params.get(name, {})) for name in calls),
        flops=round(sum(operations[name] for name in calls) / examples),
    )


def whole(part: str, parameters: int, operations: float, module: str = "") -> Row:
    """A row that has no shapes of its own."""
    return Row(part, module, 1, "", "", parameters, round(operations))


def size(params: Any) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def cells(rows: Iterable[Row]) -> list[list[str]]:
    """The rows as text."""
    return [
        [
            r.part,
            f"{r.copies} × {r.module}" if r.copies > 1 else r.module,
            r.input,
            r.output,
            f"{r.parameters:,}",
            with_unit(r.flops),
        ]
        for r in rows
    ]


def markdown(summary: Summary) -> str:
    """The table in Markdown, its notes below it."""
    rows = [list(HEADER), *cells(summary.rows)]
    table = format_markdown_table(rows, 4)
    return f"{table}\n{' '.join(summary.notes)}\n"


def show(summary: Summary, title: str) -> None:
    """Prints the table: for the eye on a screen, in Markdown to a file."""
    if not sys.stdout.isatty():
        return print_text(f"### {escape_markdown(title)}\n\n{markdown(summary)}")
    rows = cells(summary.rows)
    for row in rows:  # a name and its shape stay on one line
        row[2:4] = [", ".join(s.replace(" ", NO_BREAK) for s in t.split(", ")) for t in row[2:4]]
    print_table([list(HEADER), *rows], title, words=4)
    print_text()
    print_paragraph(" ".join(summary.notes))

"""The arguments of `from_table` that say how rows are read."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.data.kinds import Input, Target
from mmjax.data.load.check_dataset import check_standardize_names
from mmjax.data.load.split_rows import Split
from mmjax.data.load.stored.merge_surveys import ColumnPlan
from mmjax.data.load.tables.blank_rows import check_blank_rows
from mmjax.data.sampling.example_weights import check_weight_names


class TableOptions(NamedTuple):
    """The arguments of `from_table` that say how rows are read; see there.

    Attributes:
      columns: what is read.
      split: as the user gives it.
      seed: seed of the shares.
      name: name of the data set.
      standardize: modalities that are standardized.
      skip_unreadable: whether examples with damaged files are left out.
    """

    columns: ColumnPlan
    split: str | Mapping[str, float] | Split | None
    seed: int
    name: str | None
    standardize: Sequence[str] | None
    skip_unreadable: bool

    def get_split(self) -> Split | None:
        """Returns how the rows of one table become splits; None if that was not given."""
        split = self.split
        if isinstance(split, str):
            return Split(column=split)
        return split if isinstance(split, Split | None) else Split(tuple(split.items()))

    def check(
        self,
        in_memory: bool,
        scan_cache: str | os.PathLike[str] | None,
        is_streamed: bool,
    ) -> None:
        """Refuses options that contradict each other.

        Raises:
          ValueError: naming them.
        """
        plan = self.columns
        if not plan.inputs or not plan.targets:
            raise ValueError("inputs and targets each need at least one column.")
        _check_specs("inputs", plan.inputs, "modality", Input)
        _check_specs("targets", plan.targets, "task", Target)
        check_standardize_names(self.standardize, plan.inputs)
        check_weight_names(plan.weights, plan.targets)
        check_blank_rows(plan.blank_rows)
        plan.cells.dialect.check()
        if is_streamed and (scan_cache is not None or not in_memory):
            raise ValueError("stream has a cache of its own; leave in_memory and scan_cache out.")
        if scan_cache is not None and in_memory:
            raise ValueError("scan_cache is for in_memory=False; give that, or leave it out.")


def _check_specs(argument: str, specs: Any, name: str, kinds: Any) -> None:
    """Refuses what is neither a mapping nor of kinds or names of columns.

    Raises:
      ValueError: naming the argument and its value.
    """
    if not isinstance(specs, Mapping):
        raise ValueError(
            f"{argument} is a {type(specs).__name__}, {repr(specs)[:60]}; it must be "
            f"{{{name}: column or kind}}, such as {{'x': 'column'}}."
        )
    for key, spec in specs.items():
        if not isinstance(spec, str | kinds):
            is_kind = isinstance(spec, type) and issubclass(spec, kinds)
            fix = f"{spec.__name__}('column')" if is_kind else "'column'"
            raise ValueError(
                f"{argument}[{key!r}] is {repr(spec)[:80]}; it must be the name of a column or a "
                f"kind of one, such as {fix}."
            )
        if isinstance(classes := getattr(spec, "classes", ()), str):
            raise ValueError(
                f"{argument}[{key!r}] has the classes {classes!r}; give a tuple, such as "
                f"({classes!r},)."
            )

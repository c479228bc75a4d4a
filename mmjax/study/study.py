"""A study as a plain value: a base experiment, axes, seeds, and what is compared with what.

    STUDY = Study(
        base=experiment,
        axes={
            "fusion": {
                "concat": {"model.fusion": "Concat()"},
                "gated": {"model.fusion": "Gated(width=64)"},
            },
            "balancer": ["equal()", "pcgrad()"],
        },
        metric="digit/accuracy",
    )

An axis is a name with a set of changes {path: value} a label, or, in short, a path with its values,
which are then the labels too. Paths and values are those of `--set`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from fiddle.experimental.auto_config import AutoConfig

from mmjax.study.search_space import Distribution

Changes = Mapping[str, str]
Axis = Mapping[str, Changes] | Sequence[str]
Labels = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A search for good values, with the same number of trials for every arm.

    A trial trains with values drawn from the space; the one with the best metric on the validation
    split, meaned over its seeds, gives the values with which the arm is trained for the report. No
    trial ever evaluates the test split.

    Attributes:
      trials: how many, for every arm.
      space: {path: `Uniform`, `LogUniform` or `Choice`}. An arm that lacks a path is tuned in the
        others only.
      sampler: "random", or "tpe", "cmaes" or "gp" by Optuna, which choose a trial by those before.
      seeds: seeds of every trial; none of them may be one of the study's.
      seed: of the sampler.
    """

    trials: int
    space: Mapping[str, Distribution]
    sampler: str = "random"
    seeds: Sequence[int] = (1000,)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"Tuning: trials is {self.trials}; it must be at least 1.")
        if self.sampler not in (known := ("random", "tpe", "cmaes", "gp")):
            raise ValueError(f"Tuning: sampler is {self.sampler!r}; it must be one of {known}.")
        if not self.space or not self.seeds:
            raise ValueError("Tuning: give it at least one path in `space` and one seed.")


@dataclasses.dataclass(frozen=True)
class Study:
    """Which experiments are compared, and how.

    Attributes:
      base: an experiment, a function under `auto_config`.
      axes: {axis: {label: {path: value}}}, or {path: [values]}. The arms are all combinations.
      seeds: of every arm; they train as one program.
      metric: the primary one, "TASK/METRIC" or "mean/METRIC"; None is what the experiment monitors.
        Its direction is the head's.
      baseline: {axis: label} of the arm that the others are tested against; the first label of an
        axis that is not named.
      leave_out: {axis: label} -> whether there is no such arm.
      single_task: whether each task is also trained alone, with the base experiment.
      single_modality: whether each modality is also trained alone, with the base experiment.
      vmapped: paths whose numbers alone differ between arms that then train as one program.
      tuning: values that are searched for every arm before it is trained.
    """

    base: AutoConfig
    axes: Mapping[str, Axis]
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    metric: str | None = None
    baseline: Labels = dataclasses.field(default_factory=dict)
    leave_out: Callable[[Labels], bool] | None = None
    single_task: bool = False
    single_modality: bool = False
    vmapped: Sequence[str] = ()
    tuning: Tuning | None = None

"""Studies as plain values: a base experiment, axes, seeds, and a baseline.

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

An axis maps a name to labels, each with its configuration changes {path: value}. The short form
maps a path to values, which are also the labels. Paths and values are written as for `--set`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from fiddle.experimental.auto_config import AutoConfig

from mmjax.study.search_space import Distribution

Changes = Mapping[str, str]
Axis = Mapping[str, Changes] | Sequence[str]
ArmLabels = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Hyperparameter search with the same number of trials for every arm.

    A trial trains with values drawn from the space. The arm is then trained for the report with
    the values of the trial whose validation metric, averaged over its seeds, is best. No trial
    evaluates the test split.

    Attributes:
      trials: number of trials per arm.
      space: {path: `Uniform`, `LogUniform` or `Choice`}. Paths that an arm lacks are ignored.
      sampler: "random", or one of Optuna's samplers "tpe", "cmaes" and "gp", which use the results
        of earlier trials.
      seeds: the seeds of every trial, distinct from those of the study.
      seed: the seed of the sampler.
      parallel: trials of an arm that train at the same time under one of Optuna's samplers, from
        the results of those before them; random trials all can. More are less well informed.

    Example:
      >>> from mmjax.study import LogUniform, Tuning
      >>> Tuning(trials=10, space={"optimizer.learning_rate": LogUniform(1e-4, 1e-2)}).sampler
      'random'
    """

    trials: int
    space: Mapping[str, Distribution]
    sampler: str = "random"
    seeds: Sequence[int] = (1000,)
    seed: int = 0
    parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("trials", "parallel"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"Tuning: {name} is {count}; it must be at least 1.")
        if self.sampler not in (known := ("random", "tpe", "cmaes", "gp")):
            raise ValueError(f"Tuning: sampler is {self.sampler!r}; it must be one of {known}.")
        if not self.space or not self.seeds:
            raise ValueError("Tuning: space needs at least one path, and seeds at least one seed.")


@dataclasses.dataclass(frozen=True)
class Study:
    """Comparison of experiments.

    Attributes:
      base: the base experiment, a function decorated with `auto_config`.
      axes: {axis: {label: {path: value}}}, or {path: [values]}. The arms are all combinations.
      seeds: the seeds of every arm; they train as one program.
      metric: the primary metric, "TASK/METRIC" or "mean/METRIC"; None for the metric that the
        experiment monitors. The head defines its direction.
      baseline: {axis: label} of the arm that the others are tested against; by default the first
        label of each axis.
      leave_out: returns True for the {axis: label} of combinations to exclude.
      single_task: whether the base experiment is also trained with each task alone.
      single_modality: whether the base experiment is also trained with each modality alone.
      vmapped: paths of numbers; arms that differ in nothing else train as one program.
      tuning: hyperparameter search of every arm before its training; None for no search.
      folds: number of folds of the data set, on each of which every arm is trained with every seed;
        0 for the data set as it is. The data set is made with a `mmjax.data.Split`, or with a
        function of its own with parameters `folds` and `fold`. A search is made per fold, on its
        validation split, because the others' hold its test examples.

    Example:
      >>> import mmjax
      >>> from mmjax.study import Study
      >>> @mmjax.auto_config
      ... def experiment():
      ...     return mmjax.Experiment(...)
      >>> Study(base=experiment, axes={"balancer": ["equal()", "pcgrad()"]}).seeds
      (0, 1, 2, 3, 4)
    """

    base: AutoConfig
    axes: Mapping[str, Axis]
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    metric: str | None = None
    baseline: ArmLabels = dataclasses.field(default_factory=dict)
    leave_out: Callable[[ArmLabels], bool] | None = None
    single_task: bool = False
    single_modality: bool = False
    vmapped: Sequence[str] = ()
    tuning: Tuning | None = None
    folds: int = 0

"""The result of `fit`: the final state, the metrics of the best parameters, and the costs."""

import dataclasses
from collections.abc import Mapping

from mmjax.freezing import complete_replicas
from mmjax.train.divergence import NonFiniteError
from mmjax.train.hardware.device_memory import measure_peak_memory
from mmjax.train.hardware.multihost import fetch_arrays
from mmjax.train.programs import Programs
from mmjax.train.reporting.class_report import ClassStatistics, select_class_statistics
from mmjax.train.split_evaluation import (
    collect_split_statistics,
    evaluate_split,
    summarize_split,
)
from mmjax.train.steps.state import LoopState
from mmjax.train.timing import TrainingClock
from mmjax.types import Variables


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Result of `mmjax.fit`.

    Attributes:
      state: the final loop state.
      frozen: the variables that did not train; None if all did.
      validation: {metric: value} of each replica's best parameters on the validation split.
      test: the same on the test split; empty if `fit` did not test.
      test_classes: what `write_class_reports` needs of each replica's statistics of the test split.
      failed: {replica: error} of replicas that are no longer finite.
      seconds: time spent in `fit`.
      first_dispatch_seconds: time to the end of the first dispatch, compilation included.
      examples_per_second: training throughput after the first dispatch, over all replicas.
      step_seconds: time per training step of all replicas, validations excluded: the median over
        the dispatches after the first, so that a pause of the machine does not count; NaN if there
        was only one dispatch.
      peak_bytes: memory that a dispatch of training needs on one device, its data included, divided
        by the number of replicas that the device computes concurrently.
      measured_peak_bytes: the most memory that was in use; see `measure_peak_memory`.
      flops: floating-point operations of one replica's training step.
    """

    state: LoopState
    frozen: Variables | None
    validation: list[dict[str, float]]
    test: list[dict[str, float]]
    test_classes: list[ClassStatistics]
    failed: dict[int, NonFiniteError]
    seconds: float
    first_dispatch_seconds: float
    examples_per_second: float
    step_seconds: float
    peak_bytes: int
    measured_peak_bytes: int
    flops: int

    @property
    def best(self) -> Variables:
        """Best variables of every replica, with frozen ones, as `Model.apply` takes them."""
        best, frozen = fetch_arrays((self.state.best, self.frozen))
        return complete_replicas(best, frozen, len(self.validation))


def make_fit_result(
    programs: Programs,
    state: LoopState,
    failed: Mapping[int, NonFiniteError],
    clock: TrainingClock,
    peak_bytes: int,
    *,
    test: bool,
) -> FitResult:
    """Evaluates the best parameters, and collects the result.

    Args:
      programs: the programs that made the state.
      state: the final state.
      failed: {replica: error} of replicas that are no longer finite.
      clock: the clock of the dispatches.
      peak_bytes: memory that a dispatch of training needs on one device.
      test: whether to evaluate on the test split.
    """
    tested = collect_split_statistics(programs, state.best, "test") if test else []
    return FitResult(
        state=state,
        frozen=programs.initial.frozen,
        validation=evaluate_split(programs, state.best, "validation"),
        test=summarize_split(programs, state.best, tested) if test else [],
        test_classes=[select_class_statistics(statistics) for statistics in tested],
        failed=dict(failed),
        seconds=clock.seconds(),
        first_dispatch_seconds=clock.first,
        examples_per_second=clock.steps_per_second() * programs.examples_per_step,
        step_seconds=clock.step_seconds(),
        peak_bytes=peak_bytes // programs.concurrent_replicas,
        measured_peak_bytes=measure_peak_memory(programs.devices),
        flops=programs.flops(),
    )

"""The best variables of a run, loaded from its checkpoints or evaluated again."""

from collections.abc import Sequence
from pathlib import Path

from mmjax.experiment import Experiment
from mmjax.freezing import complete_replicas
from mmjax.train.checkpoint import Checkpoints, load_frozen
from mmjax.train.hardware.devices import choose_devices
from mmjax.train.programs import Programs
from mmjax.train.split_evaluation import evaluate_split
from mmjax.train.steps.state import LoopState
from mmjax.types import Params, Variables


def load_best(
    experiment: Experiment,
    directory: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    averaged: bool = True,
) -> Params:
    """Loads the best parameters of a run, with a leading axis of seeds.

    Args:
      experiment: the experiment of the run.
      directory: the arm's directory.
      seeds: the run's seeds.
      averaged: see `mmjax.load`.

    Raises:
      ValueError: if the directory has no checkpoint.
    """
    return load_best_variables(experiment, directory, seeds=seeds, averaged=averaged)["params"]


def load_best_variables(
    experiment: Experiment,
    directory: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    averaged: bool = True,
) -> Variables:
    """Loads a run's best parameters and the other variables of that step, for `Model.apply`.

    Args:
      experiment: the experiment of the run.
      directory: the arm's directory.
      seeds: the run's seeds.
      averaged: see `mmjax.load`.

    Returns:
      {"params": parameters, and other collections}, with a leading axis of the seeds.

    Raises:
      ValueError: if the directory has no checkpoint.
    """
    programs = Programs(experiment, seeds, choose_devices(experiment, 1))
    state = _load_state(programs, Path(directory).expanduser())
    variables = state.best if averaged else state.best_raw or state.best
    return complete_replicas(variables, programs.initial.frozen, len(seeds))


def evaluate_best(
    experiment: Experiment,
    directory: str | Path,
    *,
    seeds: Sequence[int],
    devices: int | None = None,
    checked: bool = False,
) -> list[dict[str, float]]:
    """Returns the test metrics of a run's best parameters, one dictionary per seed.

    Args:
      experiment: the experiment of the run.
      directory: the arm's directory.
      seeds: the run's seeds.
      devices: number of devices; None as `choose_devices` decides.
      checked: whether the experiment is checked already; see `fit`.

    Raises:
      ValueError: if the directory has no checkpoint.
    """
    programs = Programs(experiment, seeds, choose_devices(experiment, devices), checked=checked)
    best = _load_state(programs, Path(directory).expanduser()).best
    return evaluate_split(programs, best, "test")


def _load_state(programs: Programs, directory: Path) -> LoopState:
    """Reads the newest undamaged state of a run, and changes nothing in its directory.

    The programs get the run's frozen variables.
    """
    state = None
    if (directory / "checkpoints").is_dir():
        checkpoints = Checkpoints(directory / "checkpoints")
        state = checkpoints.restore(programs.initial.shapes, set_aside=False)
    if state is None:
        raise ValueError(f"{directory} has no checkpoint; train first, or name another run.")
    if (like := programs.initial.frozen_shapes) is not None:
        programs.initial.frozen = load_frozen(directory, like)
        if programs.initial.frozen is None:
            raise ValueError(
                f"{directory} lacks its frozen parameters; restore {directory}/frozen."
            )
    return state

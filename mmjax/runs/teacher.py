"""Loads a teacher for `auxiliary.Distillation`: a run's model with its best parameters."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from mmjax import config as configs
from mmjax.auxiliary.distillation import Teacher
from mmjax.config import trust
from mmjax.experiment import Experiment
from mmjax.runs import workdir
from mmjax.runs.experiment_code import restore_modules_afterwards
from mmjax.runs.stored_experiment import load_experiment_config, load_stored_code
from mmjax.train.best_variables import load_best_variables


def trained(
    directory: str | Path,
    arm: str,
    *,
    seed: int | None = None,
    allow: Sequence[str] = (),
    allow_code: bool = False,
) -> Teacher:
    """Loads the model of one arm of a run, with its best parameters.

    A configuration that calls it stores only these arguments. It reads another run's files, so a
    stored configuration may call it only if the user says `--allow mmjax.runs.teacher`, or
    names the experiment's file that does. What the other run may use is then decided by the
    options `--allow` and `--allow-code`, not by the stored arguments.

    Args:
      directory: the directory of the run, as given to `mmjax run --workdir`.
      arm: the name of its arm, such as that of its only modality.
      seed: which of the run's seeds; None is the first.
      allow: modules beyond mmjax's that the run's configuration may use.
      allow_code: whether the run's copy of its experiment's code may be run, if its configuration
        uses functions of it.

    Raises:
      ValueError: no such run, arm or seed, no checkpoint, or a configuration that is not trusted.
    """
    directory = Path(directory).expanduser()
    stored = workdir.read_stored_run(directory)
    if arm not in stored.arms:
        raise ValueError(f"The run {directory} has no arm {arm!r}, only {sorted(stored.arms)}.")
    seed = stored.seeds[0] if seed is None else seed
    if seed not in stored.seeds:
        raise ValueError(f"The run {directory} has no seed {seed}, only {list(stored.seeds)}.")
    permitted = trust.get_current_trust() or trust.Trust(tuple(allow), allow_code)
    with restore_modules_afterwards():
        fix = "If you trust it, add --allow-code, or write trained(..., allow_code=True)."
        code = load_stored_code(directory, [stored.arms[arm]], permitted, fix)
        path = workdir.get_config_path(directory, arm)
        config = load_experiment_config(path, stored.arms[arm], code.allow, code.own)

    def build() -> Experiment:
        with trust.open_stored_run(permitted):
            experiment: Experiment = configs.build_config(config)
            return experiment

    # The student is being built now, and fiddle builds one configuration per thread at a time.
    with ThreadPoolExecutor(1) as thread:
        experiment = thread.submit(build).result()
    best = load_best_variables(experiment, directory / arm, seeds=stored.seeds)
    index = stored.seeds.index(seed)
    variables = jax.device_get(jax.tree.map(lambda x: x[index], best))
    params = variables.pop("params")
    return Teacher(experiment.model, params, experiment.data.modalities, variables)

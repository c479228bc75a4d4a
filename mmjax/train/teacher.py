"""A teacher for `auxiliary.Distillation`: the best parameters that a run left, with their model."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from mmjax.auxiliary.distillation import Teacher


def trained(
    directory: str | Path, arm: str, *, seed: int | None = None, allow: Sequence[str] = ()
) -> Teacher:
    """The model of one arm of a run, with its best parameters.

    A configuration that calls it stores only these arguments. It reads files and may import the
    run's copy of its experiment, so a stored configuration may call it only where the user says
    `--allow mmjax.train.teacher`, or names the experiment's file that does.

    Args:
      directory: the run's, as `mmjax run --workdir` was given it.
      arm: which of its arms, such as the name of its only modality.
      seed: which of the run's seeds; None is the first.
      allow: modules beyond mmjax's, and the run's own experiment, that its configuration may use.

    Raises:
      ValueError: no such run, arm or seed, no checkpoint, or a configuration that is not trusted.
    """
    from mmjax import config as configs
    from mmjax.cli import plan, workdir
    from mmjax.train.run import load_best

    directory = Path(directory)
    stored = workdir.read(directory)
    if arm not in stored.arms:
        raise ValueError(f"The run {directory} has no arm {arm!r}, only {sorted(stored.arms)}.")
    seed = stored.seeds[0] if seed is None else seed
    if seed not in stored.seeds:
        raise ValueError(f"The run {directory} has no seed {seed}, only {list(stored.seeds)}.")
    own = plan.own_module(directory, stored)
    config = configs.load(stored.arms[arm], allow=allow, own=own)
    # This is called while the student is built, and a thread builds one configuration at a time.
    with ThreadPoolExecutor(1) as another:
        experiment = another.submit(configs.build, config).result()
    best = load_best(experiment, directory / arm, seeds=stored.seeds)
    place = stored.seeds.index(seed)
    params = jax.device_get(jax.tree.map(lambda x: x[place], best))
    return Teacher(experiment.model, params, experiment.data.modalities)

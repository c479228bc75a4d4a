"""`mmjax.load`: loads a run as a trained model, without its training data."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax

from mmjax import config as configs
from mmjax import files
from mmjax.config import trust
from mmjax.config.trust import Trust
from mmjax.data.spec import SPEC_FILE, Spec, fill_part, make_spec, read_spec, select_spec
from mmjax.experiment import Experiment
from mmjax.files.run_files import check_arm_names, is_directory_name, read_config_file
from mmjax.model import Model
from mmjax.runs.best_params import list_finished_seeds, read_best_variables
from mmjax.runs.experiment_code import restore_modules_afterwards
from mmjax.runs.stored_experiment import load_experiment_config, load_stored_code
from mmjax.runs.stored_model import StoredModel, build_stored_model
from mmjax.runs.trained import Trained


def load(
    run: str | Path,
    arm: str | None = None,
    seed: int | Sequence[int] | None = None,
    *,
    experiment: Experiment | None = None,
    averaged: bool = True,
    allow: Sequence[str] = (),
    allow_code: bool = False,
) -> Trained:
    """Loads a trained model with its best parameters; no training data are needed.

    Nothing that the run names is executed, except for what the arguments permit; see SECURITY.md.

    Args:
      run: the directory of a run, of a study, or of one of their arms.
      arm: name of the arm; None: the only one, or "all".
      seed: one seed, or several for an ensemble; None: all seeds of the arm.
      experiment: the arm's experiment, for a run that does not store it: one that was started by
        `mmjax.run` from Python, or before specs were stored.
      averaged: with `Experiment.ema` or a schedule-free optimizer, whether to load the averaged
        parameters, which were evaluated, or, of the same step, those that were trained.
      allow: modules beyond mmjax's that the model's configuration may use.
      allow_code: whether the run's copy of its experiment's code may be run, if the model is made
        by functions of it.

    Raises:
      ValueError: there is no such run, arm or finished seed; the run is damaged; or it needs what
        the arguments do not permit.

    Example:
      >>> trained = load("runs/digits", arm="all", seed=0)  # doctest: +SKIP
      >>> trained.predict("new.csv").to_frame()  # doctest: +SKIP
    """
    home = find_arm(Path(run).expanduser(), arm)
    seeds = _choose_seeds(home.directory, seed)
    permitted = trust.get_current_trust() or Trust(tuple(allow), allow_code)

    def make_experiment() -> Experiment:
        return experiment if experiment is not None else _build_experiment(home, permitted)

    spec, stored = read_spec(home.directory), _build_model(home, experiment, permitted)
    if stored is None or spec is None:
        whole = _build_instead(home, make_experiment, spec is None)
        spec, stored = _make_spec(whole), _describe_model(whole)
    model = _fill_model(stored.model, spec)
    variables = read_best_variables(home.directory, seeds, averaged=averaged)
    if len(seeds) == 1:
        variables = jax.tree.map(lambda x: x[0], variables)
    return Trained(
        model=model,
        spec=select_spec(spec, model.encoders, model.heads),
        seeds=seeds,
        variables=variables,
        compute_dtype=stored.compute_dtype,
        batch_size=stored.batch_size,
        make_experiment=make_experiment,
    )


def _make_spec(experiment: Experiment) -> Spec:
    model = experiment.model
    return make_spec(experiment.data, model.heads, model.encoders)


def _fill_model(model: Model, spec: Spec) -> Model:
    """Returns the model with what its parts learned from the training split."""
    encoders, heads = {}, {}
    for modality, encoder in model.encoders.items():
        encoders[modality] = fill_part(encoder, spec.encoders.get(modality, {}))
    for task, head in model.heads.items():
        heads[task] = fill_part(head, spec.heads.get(task, {}))
    return model.clone(encoders=encoders, heads=heads)


class ArmHome(NamedTuple):
    """Where an arm is stored.

    Attributes:
      name: its name.
      directory: its directory.
      root: the directory of its run or study, which holds the experiment's code.
    """

    name: str
    directory: Path
    root: Path


def find_arm(directory: Path, arm: str | None) -> ArmHome:
    """Finds an arm in the directory of a run or a study; the directory may be that of the arm.

    Raises:
      ValueError: there is none, or several and none is named.
    """
    if (directory / "run.json").is_file():
        homes = directory
        facts = files.read_json(directory / "run.json")
        with files.name_damaged_file(directory / "run.json"):
            names = list(facts["arms"])
            check_arm_names(names)
    elif (directory / "study.json").is_file():
        homes = directory / "arms"
        names = sorted(path.name for path in homes.glob("*") if is_directory_name(path.name))
    elif (directory / "checkpoints").is_dir() or (directory / "result.json").is_file():
        if arm not in (None, directory.absolute().name):
            raise ValueError(f"{directory} is the arm {directory.absolute().name!r}, not {arm!r}.")
        directory = directory.absolute()
        return ArmHome(directory.name, directory, _find_root(directory))
    elif directory.is_dir() and (names := _list_arms(directory)):
        homes = directory  # a run that was started from Python
    else:
        raise ValueError(f"{directory} holds no run: it has neither run.json nor checkpoints.")
    if arm is None:
        arm = names[0] if len(names) == 1 else "all"
        if arm not in names:
            raise ValueError(f"{directory} has several arms; choose one of {', '.join(names)}.")
    if arm not in names:
        raise ValueError(f"{directory} has no arm {arm!r}, only {', '.join(names)}.")
    return ArmHome(arm, homes / arm, directory)


def _list_arms(directory: Path) -> list[str]:
    """Lists the folders that hold checkpoints."""
    return sorted(path.parent.name for path in directory.glob("*/checkpoints"))


def _find_root(arm: Path) -> Path:
    """Finds the directory of the run or study that an arm belongs to."""
    for directory in arm.parents[:2]:
        if (directory / "run.json").is_file() or (directory / "study.json").is_file():
            return directory
    return arm


def _choose_seeds(directory: Path, seed: int | Sequence[int] | None) -> tuple[int, ...]:
    known = list_finished_seeds(directory)
    chosen = known if seed is None else (seed,) if isinstance(seed, int | str) else tuple(seed)
    for number in chosen:
        if isinstance(number, str):
            raise ValueError(f"seed is {seed!r}, a text; give whole numbers.")
        if number not in known:
            raise ValueError(
                f"{directory} has no seed {number}, only {', '.join(map(str, known))}."
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"seed is {seed!r}; name one seed, or several that differ.")
    return chosen


def _build_model(
    home: ArmHome, experiment: Experiment | None, permitted: Trust
) -> StoredModel | None:
    if experiment is not None:
        return _describe_model(experiment)
    path = home.directory / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{home.directory} does not store its experiment; pass it: mmjax.load(run, "
            "experiment=...)."
        )
    return build_stored_model(home.root, path, read_config_file(path), permitted)


def _describe_model(experiment: Experiment) -> StoredModel:
    return StoredModel(experiment.model, experiment.compute_dtype, experiment.eval_batch_size)


def _build_instead(home: ArmHome, make: Callable[[], Experiment], without_spec: bool) -> Experiment:
    """Builds the whole experiment, with its data, since its parts are not stored.

    Raises:
      ValueError: it cannot be built; the message says what to do.
    """
    try:
        return make()
    except (ValueError, OSError) as error:
        reason = (
            f"has no {SPEC_FILE}, since an older mmjax trained it"
            if without_spec
            else "makes its experiment by a function of its own"
        )
        raise ValueError(
            f"{home.directory} {reason}, and its data set cannot be built: {error} Build the "
            "experiment yourself and pass it: mmjax.load(run, experiment=...)."
        ) from error


def _build_experiment(home: ArmHome, permitted: Trust) -> Experiment:
    """Builds the experiment of an arm from its stored configuration."""
    path = home.directory / "config.json"
    text = read_config_file(path)
    with restore_modules_afterwards():
        fix = "If you trust it, pass allow_code=True (mmjax predict: --allow-code)."
        code = load_stored_code(home.root, [text], permitted, fix)
        config = load_experiment_config(path, text, code.allow, code.own)

    def build() -> Experiment:
        with trust.open_stored_run(permitted):
            experiment: Experiment = configs.build_config(config)
            return experiment

    # Fiddle builds one configuration per thread at a time, and another may be being built.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(build).result()

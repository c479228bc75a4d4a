"""The directory of a run: the files that say what made it, beside its results.

config.json       the resolved configuration
config.txt        the same as a table, defaults included
ARM/config.json   the configuration of each arm
run.json          the experiment's name, the seeds and the arms
experiment.py     the experiment's file, as it was
code/, code.json  the same and the modules beside it, to be run again
provenance.json   a list: versions, devices, git revision and command of each start
"""

import contextlib
import datetime
import itertools
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax import files, provenance
from mmjax.config import ConfigError, references
from mmjax.files.run_files import is_directory_name, read_config_file, write_config_file
from mmjax.runs.experiment_code import store_code
from mmjax.runs.stored_run import StoredRun, find_run_differences

_MAX_LISTED = 10  # differences that an error lists


def choose_new_directory(name: str, root: Path = Path("runs")) -> Path:
    """Chooses a directory that does not exist yet, named by the time."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = root / name / stamp
    for number in itertools.count(2):
        if not path.exists():
            break
        path = root / name / f"{stamp}-{number}"
    return path


def is_free_for_run(directory: Path) -> bool:
    """Checks whether a run may start there: the directory is missing or empty."""
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"--workdir {directory} is a file; choose a directory.")
    return files.is_unused_directory(directory)


def lock_run_directory(directory: Path) -> contextlib.AbstractContextManager[None]:
    """Locks the directory for this run; of several processes of one run the first does it.

    Raises:
      LockedError: another run works there.
    """
    import jax

    return contextlib.nullcontext() if jax.process_index() else files.lock_directory(directory)


def write_run(
    directory: Path, run: StoredRun, table: str, module: ModuleType | None, record: dict
) -> None:
    """Creates the directory with all its first files at once, or not at all.

    Raises:
      ConfigError: it cannot be written.
    """
    # Written beside the directory and renamed, so that a kill leaves no incomplete run.
    path = directory.resolve()  # "." has no name
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write_run_files(draft, run, table, module, record)
        _move_into_place(draft, directory)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise ConfigError(f"cannot write {directory}: {reason}.") from error
        raise


def read_stored_run(directory: Path) -> StoredRun:
    """Reads what `write_run` stored.

    Raises:
      ConfigError: if the directory holds no run.
      DamagedFileError: it is damaged.
    """
    if not get_config_path(directory).is_file():
        raise ConfigError(f"{directory} holds no run: it has no config.json.")
    if not (directory / "run.json").is_file() and (directory.parent / "run.json").is_file():
        raise ConfigError(f"{directory} is an arm of a run; name the run, {directory.parent}.")
    facts = _read_facts(directory)
    arms = {arm: _read_checked_config(get_config_path(directory, arm)) for arm in facts["arms"]}
    config = _read_checked_config(get_config_path(directory))
    seeds = tuple(facts["seeds"])
    return StoredRun(facts["experiment"], config, arms, facts["arms_function"], seeds)


def get_config_path(directory: Path, arm: str = "") -> Path:
    """Returns the path of the configuration of a run or of one of its arms."""
    return directory / arm / "config.json"


def _read_checked_config(path: Path) -> str:
    """Reads a configuration whose references to Python objects are well formed.

    Raises:
      DamagedFileError: if they are not, or the configuration is missing.
    """
    text = read_config_file(path)
    with files.name_damaged_file(path):
        references.list_foreign_modules(text)
    return text


def _read_facts(directory: Path) -> dict[str, Any]:
    """Reads run.json: the experiment's name, the seeds and the arms.

    Its names become directories, so they must not lead out of the run.

    Raises:
      DamagedFileError: it is damaged, or holds invalid values.
    """
    path = directory / "run.json"
    facts: dict[str, Any] = files.read_json(path)
    with files.name_damaged_file(path):
        kinds = {"experiment": str, "arms": list, "seeds": list, "arms_function": str | None}
        for name, kind in kinds.items():
            if not isinstance(facts[name], kind):
                raise ValueError(f"{name} is {facts[name]!r}")
        if not all(type(seed) is int and seed >= 0 for seed in facts["seeds"]):
            raise ValueError(f"the seeds are {facts['seeds']}")
        for name in [facts["experiment"], *facts["arms"]]:
            check_directory_name(name)
    return facts


def check_directory_name(name: Any) -> None:
    """Refuses an arm whose name cannot be that of a directory.

    Raises:
      ConfigError: naming it.
    """
    if not is_directory_name(name):
        raise ConfigError(f"the arm name {name!r} cannot be the name of a directory; rename it.")


def may_resume(directory: Path, asked: StoredRun, own: ModuleType | None, *, resume: bool) -> bool:
    """Checks whether the directory holds this very run, to be continued, maybe for more epochs.

    Raises:
      ConfigError: it holds another run, or this one and --resume is not given.
    """
    if is_free_for_run(directory):
        return False
    if not resume and (directory / "config.json").exists():
        raise ConfigError(
            f"{directory} already holds a run; add --resume to continue it, or choose another "
            "--workdir."
        )
    if not resume:
        raise ConfigError(f"{directory} is not empty; choose another --workdir.")
    stored = read_stored_run(directory)
    try:
        lines = find_run_differences(stored, asked, own)
    except ConfigError as error:
        raise ConfigError(f"{directory} cannot be continued: {error}") from error
    if lines:
        more = [f"and {len(lines) - _MAX_LISTED} more"] * (len(lines) > _MAX_LISTED)
        listed = "\n".join(f"  {line}" for line in [*lines[:_MAX_LISTED], *more])
        raise ConfigError(f"{directory} holds a run of a different configuration:\n{listed}")
    return True


def _write_run_files(
    draft: Path, run: StoredRun, table: str, module: ModuleType | None, record: dict
) -> None:
    facts = {
        "experiment": run.name,
        "seeds": run.seeds,
        "arms": list(run.arms),
        "arms_function": run.arms_function,
    }
    for arm, config in run.arms.items():
        (draft / arm).mkdir(parents=True)
        write_config_file(get_config_path(draft, arm), config)
    write_config_file(get_config_path(draft), run.config)
    files.write_text(draft / "config.txt", table + "\n")
    files.write_json(draft / "run.json", facts)
    provenance.append_record(draft, record)
    store_code(draft, module)


def _move_into_place(draft: Path, directory: Path) -> None:
    """Renames the draft in one step; if there is an empty directory (maybe a mount), fills it."""
    if not directory.exists():
        draft.rename(directory)
        return
    if not files.is_unused_directory(directory):
        raise ConfigError(
            f"another process has just started a run in {directory}; choose another --workdir."
        )
    for item in draft.iterdir():
        shutil.move(item, directory)
    draft.rmdir()

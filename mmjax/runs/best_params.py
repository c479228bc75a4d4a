"""Reads the best parameters of a finished arm, without its data, optimizer or balancer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax import files
from mmjax.files.run_files import read_result_file
from mmjax.train.checkpoint import hash_arrays


def list_finished_seeds(directory: Path) -> tuple[int, ...]:
    """Lists the seeds of an arm that has its result, in the order of its checkpoints.

    Raises:
      ValueError: the arm has no result yet.
      DamagedFileError: its result is damaged.
    """
    path = directory / "result.json"
    if not path.is_file():
        raise ValueError(
            f"{directory} has no finished seed: it has no result.json. Finish the run by --resume, "
            "or name another one."
        )
    return tuple(int(seed) for seed in read_result_file(path)["seeds"])


def read_best_params(directory: Path, seeds: Sequence[int]) -> Any:
    """Reads the best parameters of some seeds of a finished arm.

    Only they are read from the checkpoint, and checked against the digests of the result.

    Args:
      directory: the arm's directory.
      seeds: some of those that `list_finished_seeds` lists.

    Returns:
      The parameters as NumPy arrays with a leading axis of the seeds.

    Raises:
      ValueError: no checkpoint has the parameters of the result.
    """
    known = list_finished_seeds(directory)
    result = read_result_file(directory / "result.json")
    with files.name_damaged_file(directory / "result.json"):
        digests = {seed: result["seeds"][str(seed)]["best_params_sha256"] for seed in seeds}
    damaged = []
    for path in _list_checkpoints(directory / "checkpoints"):
        try:
            params = _load_best_params(path)
            chosen = []
            for seed in seeds:
                index = known.index(seed)
                tree = jax.tree.map(lambda x, index=index: x[index], params)
                if hash_arrays(tree) != digests[seed]:
                    raise ValueError(f"the parameters of seed {seed} are not those of the result")
                chosen.append(tree)
        except Exception as error:  # Orbax raises errors of many types for damaged files
            damaged.append(f"{path.name}: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        return jax.tree.map(lambda *x: np.stack(x), *chosen)
    reasons = f" ({'; '.join(damaged)[:300]})" if damaged else ""
    raise ValueError(f"{directory} has no checkpoint that can be read{reasons}.")


def _list_checkpoints(directory: Path) -> list[Path]:
    """Lists the checkpoints, the newest first."""
    if not directory.is_dir():
        return []
    steps = [path for path in directory.iterdir() if path.name.isdecimal()]
    return sorted(steps, key=lambda path: -int(path.name))


def _load_best_params(path: Path) -> Any:
    from orbax.checkpoint import v1 as ocp

    path = path.resolve()
    stored = ocp.metadata(path).metadata["best_params"]
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored
    )
    context = ocp.Context()
    context.pytree.loading.partial_load = True  # the optimizer's state is not needed
    with context:
        return jax.device_get(ocp.load(path, {"best_params": shapes})["best_params"])

"""Reads the best variables of a finished arm without its data, optimizer and balancer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax import files
from mmjax.files.run_files import read_result_file
from mmjax.freezing import complete_replicas
from mmjax.train.checkpoint import hash_arrays, load_frozen
from mmjax.types import Variables


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


def read_best_variables(
    directory: Path, seeds: Sequence[int], *, averaged: bool = True
) -> Variables:
    """Reads the best parameters of some seeds of a finished arm, and the variables beside them.

    Only they are read from the checkpoint, and checked against the digests of the result.

    Args:
      directory: the arm's directory.
      seeds: some of those that `list_finished_seeds` lists.
      averaged: False for the parameters of that step as they were trained, where their averages
        were evaluated.

    Returns:
      {"params": parameters, and other collections, such as "batch_stats"}, for `Model.apply`: NumPy
      arrays with a leading axis of the seeds.

    Raises:
      ValueError: no checkpoint has the parameters of the result.
    """
    known = list_finished_seeds(directory)
    result = read_result_file(directory / "result.json")
    with files.name_damaged_file(directory / "result.json"):
        results = {seed: result["seeds"][str(seed)] for seed in seeds}
        if lacking := [seed for seed in seeds if "best_params_sha256" not in results[seed]]:
            raise ValueError(f"seed {lacking[0]} has no best_params_sha256")
        # A run that evaluated what it trained has stored it only once.
        raw = not averaged and all("best_raw_sha256" in stored for stored in results.values())
    damaged = []
    for path in _list_checkpoints(directory / "checkpoints"):
        try:
            stored, chosen = _load_best_variables(path, raw=raw), []
            for seed in seeds:
                index = known.index(seed)
                chosen.append(jax.tree.map(lambda x, index=index: x[index], stored))
                _check_digests(chosen[-1], seed, results[seed], raw=raw)
        except Exception as error:  # Orbax raises errors of many types for damaged files
            damaged.append(f"{path.name}: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        stacked = jax.tree.map(lambda *x: np.stack(x), *chosen)
        frozen = _read_frozen(directory, result.get("frozen_sha256"))
        return jax.device_get(complete_replicas(stacked, frozen, len(seeds)))
    reasons = f" ({'; '.join(damaged)[:300]})" if damaged else ""
    raise ValueError(f"{directory} has no checkpoint that can be read{reasons}.")


def _check_digests(tree: Variables, seed: int, result: Mapping[str, Any], *, raw: bool) -> None:
    """Refuses variables that are not those of a seed's result.

    Raises:
      ValueError: saying which of them.
    """
    if raw:
        if hash_arrays(tree) != result["best_raw_sha256"]:
            raise ValueError(f"the raw ones of seed {seed} are not those of the result")
        return
    others = {name: part for name, part in tree.items() if name != "params"}
    if hash_arrays(tree["params"]) != result["best_params_sha256"]:
        raise ValueError(f"the parameters of seed {seed} are not those of the result")
    if others and hash_arrays(others) != result.get("best_variables_sha256"):
        raise ValueError(f"the statistics of seed {seed} are not those of the result")


def _read_frozen(directory: Path, digest: str | None) -> Variables | None:
    """Reads the frozen variables of an arm, if its result has the digest of some.

    Raises:
      ValueError: they are not there, damaged, or those of another run.
    """
    if digest is None:
        return None
    frozen = load_frozen(directory)
    if frozen is None or hash_arrays(frozen) != digest:
        raise ValueError(
            f"{directory / 'frozen'} does not hold the frozen parameters of the result; restore it."
        )
    return frozen


def _list_checkpoints(directory: Path) -> list[Path]:
    """Lists the checkpoints, the newest first."""
    if not directory.is_dir():
        return []
    steps = [path for path in directory.iterdir() if path.name.isdecimal()]
    return sorted(steps, key=lambda path: -int(path.name))


def _load_best_variables(path: Path, *, raw: bool) -> Variables:
    from orbax.checkpoint import v1 as ocp

    path = path.resolve()
    stored = ocp.metadata(path).metadata
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = {
        name: jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored[name]
        )
        for name in (("best_raw",) if raw else ("best_params", "best_variables"))
        if stored.get(name)
    }
    context = ocp.Context()
    context.pytree.loading.partial_load = True  # the optimizer's state is not needed
    with context:
        loaded = jax.device_get(ocp.load(path, shapes))
    if raw:
        return dict(loaded["best_raw"])
    return {"params": loaded["best_params"], **loaded.get("best_variables", {})}

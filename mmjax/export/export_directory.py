"""Exports a trained model: one directory with the artifact, its spec and its model card."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import files
from mmjax.data.spec import SPEC_FILE, Spec, convert_spec_to_json, parse_spec
from mmjax.export.jax_artifact import PLATFORMS, run_jax, serialize_for_jax
from mmjax.export.model_card import MODEL_CARD_FILE, format_model_card
from mmjax.export.onnx_artifact import run_onnx, serialize_for_onnx
from mmjax.export.signature import (
    Arrays,
    flatten_batch,
    make_exported_function,
    make_input_arrays,
    make_output_arrays,
    make_random_arrays,
)
from mmjax.provenance import list_versions
from mmjax.runs.examples import iterate_examples
from mmjax.runs.load import find_arm, load
from mmjax.runs.trained import Trained

_VERSION = 1


class ExportFormat(NamedTuple):
    """A format of exported models.

    Attributes:
      file: name of the artifact.
      serialize: makes the artifact of a trained model.
      run: runs an artifact on named arrays.
      packages: those that make it, whose versions are stored.
      platforms: where it runs; () if the format does not say.
      has_bfloat16: whether it may compute in bfloat16. ONNX Runtime can do so on few processors, so
        that its files compute in float32.
    """

    file: str
    serialize: Callable[[Trained], bytes]
    run: Callable[[bytes, Arrays], dict[str, np.ndarray]]
    packages: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    has_bfloat16: bool = False


EXPORT_FORMATS = {
    "jax": ExportFormat("model.jax", serialize_for_jax, run_jax, (), PLATFORMS, has_bfloat16=True),
    "onnx": ExportFormat("model.onnx", serialize_for_onnx, run_onnx, ("jax2onnx",)),
}
# Rounding of another order of operations, relative to the outputs' size.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}


def export_run(
    run: str | Path,
    out: str | Path,
    format: str = "jax",
    *,
    arm: str | None = None,
    seed: int | Sequence[int] | None = None,
    trained: Trained | None = None,
) -> Trained:
    """Exports a trained model into a new directory.

    It holds the artifact (model.jax or model.onnx), spec.json and MODEL_CARD.md, and appears only
    when it is complete. Before that, the artifact is run on random examples and compared with the
    model.

    Args:
      run: the directory of a run, of a study, or of one of their arms.
      out: the directory to make.
      format: "jax", which only needs JAX, or "onnx", which ONNX Runtime and others run.
      arm: name of the arm; None: the only one, or "all".
      seed: one seed, or several for an ensemble; None: all seeds of the arm.
      trained: the model, if it is loaded already.

    Returns:
      The model.

    Raises:
      FileExistsError: `out` exists.
      ImportError: a package that the format needs is missing; the message names the extra.
      ValueError: the run cannot be loaded, see `mmjax.load`; the format cannot express the model;
        or the artifact computes something else.

    Example:
      >>> export_run("runs/digits", "exported", "onnx", seed=0)  # doctest: +SKIP
    """
    out = Path(out).expanduser()
    check_export_arguments(out, format)
    if trained is None:
        trained = load(run, arm, seed)
    home = find_arm(Path(run).expanduser(), arm)
    exported = trained
    if not EXPORT_FORMATS[format].has_bfloat16:
        # The parameters are float32 anyway; only activations are rounded less than in training.
        exported = dataclasses.replace(trained, compute_dtype="float32")
    content = EXPORT_FORMATS[format].serialize(exported)
    # A converter may change results without an error, so nothing is written before this check.
    _check_artifact(exported, format, content)
    spec = _make_export_spec(exported, format)
    card = format_model_card(exported, home, spec, content)
    _write_directory(out, EXPORT_FORMATS[format].file, content, spec, card)
    return trained


def check_export_arguments(out: Path, format: str) -> None:
    """Refuses an unknown format and a directory that cannot be made.

    Raises:
      FileExistsError: `out` exists.
      ValueError: the format is unknown, or the folder of `out` does not exist.
    """
    if format not in EXPORT_FORMATS:
        raise ValueError(f"the format {format!r} is unknown; use {' or '.join(EXPORT_FORMATS)}.")
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists, and an export overwrites nothing; name a new one.")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"the folder of {out} does not exist.")


def read_export_spec(directory: str | Path) -> Spec:
    """Reads what an exported model's data set learned, to prepare new examples for it.

    Raises:
      DamagedFileError: spec.json is damaged, missing, or of a later version of mmjax.
    """
    path = Path(directory).expanduser() / SPEC_FILE
    if not path.is_file():
        raise files.DamagedFileError(f"{path} is missing.")
    stored = files.read_json(path)
    with files.name_damaged_file(path):
        if stored["export_version"] != _VERSION:
            raise ValueError(f"it has version {stored['export_version']!r}, not {_VERSION}")
        return parse_spec(stored["preparation"])


def prepare_arrays(spec: Spec, examples: Any) -> Arrays:
    """Prepares examples as the training split was, as the inputs of an exported model.

    Args:
      spec: as `read_export_spec` returns it.
      examples: in any form that `Trained.predict` takes.

    Raises:
      ValueError: naming the example and what does not fit.

    Example:
      >>> from mmjax.data.dataset import Modality, Preparation
      >>> spec = Spec("pets", {"body": Modality((2,))}, {}, {"body": Preparation()})
      >>> prepare_arrays(spec, {"body": [[1.0, 2.0], None]})["body.present"].tolist()
      [True, False]
    """
    batches = [flatten_batch(spec, batch) for batch, _ in iterate_examples(spec, examples, 1024)]
    if not batches:
        raise ValueError("no examples were given.")
    return {name: np.concatenate([arrays[name] for arrays in batches]) for name in batches[0]}


def _make_export_spec(trained: Trained, format: str) -> dict[str, Any]:
    """Makes the content of an exported model's spec.json."""
    spec, chosen = trained.spec, EXPORT_FORMATS[format]
    inputs, outputs = {}, {}
    for name, array in make_input_arrays(spec).items():
        inputs[name] = array._asdict() | {"shape": ["batch", *array.shape]}
    for name, output in make_output_arrays(trained).items():
        task = spec.tasks[output.task]
        meaning = {"kind": task.kind, "classes": list(task.classes), "unit": task.unit}
        outputs[name] = output._asdict() | {"shape": ["batch", *output.shape]} | meaning
    versions = list_versions() | {name: metadata.version(name) for name in chosen.packages}
    return {
        "export_version": _VERSION,
        "format": format,
        "file": chosen.file,
        "platforms": list(chosen.platforms),
        "seeds": list(trained.seeds),
        "compute_dtype": trained.compute_dtype,
        "versions": versions,
        "inputs": inputs,
        "outputs": outputs,
        "preparation": convert_spec_to_json(spec),
    }


def _check_artifact(trained: Trained, format: str, content: bytes) -> None:
    """Compares an artifact with the model on random examples, in batches of two sizes.

    Raises:
      ValueError: they differ by more than rounding.
    """
    predict = make_exported_function(trained)
    tolerance = _TOLERANCES[trained.compute_dtype]
    # An artifact in which a batch size is fixed fails for at least one of two sizes.
    for count in (5, 1):
        arrays = make_random_arrays(trained.spec, count)
        results = EXPORT_FORMATS[format].run(content, arrays)
        for name, expected in predict(arrays).items():
            reference = np.asarray(expected)
            # Errors relative to the largest output, and absolute where all outputs are small.
            scale = 1 + np.nanmax(np.abs(reference), initial=0)
            if not np.allclose(
                results[name] / scale, reference / scale, rtol=0, atol=tolerance, equal_nan=True
            ):
                gap = np.nanmax(np.abs(results[name] - reference), initial=0)
                raise ValueError(
                    f"the exported model's {name} differs from the model's by {gap:.3g}, which is "
                    f"more than rounding; the format {format!r} does not express this model."
                )


def _write_directory(out: Path, file: str, content: bytes, spec: dict[str, Any], card: str) -> None:
    """Writes the files beside `out`, and renames their directory at the end."""
    # In the same folder, since a rename is atomic only within one file system.
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with files.name_file_in_errors(out):
        draft.mkdir()
        try:
            files.write_bytes(draft / file, content)
            files.write_json(draft / SPEC_FILE, spec)
            files.write_text(draft / MODEL_CARD_FILE, card)
            if out.exists():  # a rename would replace an empty directory
                raise FileExistsError(f"{out} exists, and an export overwrites nothing.")
            draft.rename(out)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

"""A trained model as an ONNX file, by jax2onnx."""

import contextlib
import logging
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import jaxpr_as_fun

from mmjax.export.jax_artifact import describe_origin, get_first_line, trace_for_export
from mmjax.export.onnx_rewrites import rewrite_for_onnx
from mmjax.export.signature import Arrays
from mmjax.runs.trained import Trained

_MAX_BYTES = 2**31 - 1  # of a protocol buffer


def serialize_for_onnx(trained: Trained) -> bytes:
    """Serializes a trained model as ONNX, with a symbolic batch size and the parameters inside.

    Raises:
      ImportError: jax2onnx is not installed.
      ValueError: naming the primitive that ONNX or jax2onnx cannot express, and where it is.
    """
    with _silence_jax2onnx():
        model = _convert_to_onnx(trained)
    if model.ByteSize() > _MAX_BYTES:
        raise ValueError(
            f"the model takes {model.ByteSize():,} bytes, and an ONNX file at most {_MAX_BYTES:,}; "
            "export it with --format jax."
        )
    return bytes(model.SerializeToString())


def _convert_to_onnx(trained: Trained) -> Any:
    """Converts a trained model to `onnx.ModelProto`."""
    jax2onnx = import_jax2onnx()
    traced = trace_for_export(trained)
    try:
        return jax2onnx.to_onnx(
            jaxpr_as_fun(rewrite_for_onnx(traced.jaxpr)),
            list(traced.inputs.values()),
            model_name=trained.spec.name or "mmjax",
            input_names=list(traced.inputs),
            output_names=list(traced.outputs),
        )
    except Exception as error:  # jax2onnx raises errors of many types
        raise ValueError(_describe_refusal(error)) from error


def run_onnx(content: bytes, arrays: Arrays) -> dict[str, np.ndarray]:
    """Runs an ONNX model in ONNX Runtime.

    Raises:
      ImportError: onnxruntime is not installed.
      ValueError: ONNX Runtime refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("onnxruntime is missing: pip install 'mmjax[onnx]'.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about what it optimizes
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        results = session.run(None, arrays)
    except Exception as error:  # ONNX Runtime raises errors of many types
        raise ValueError(f"ONNX Runtime cannot run the model: {get_first_line(error)}") from error
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, results, strict=True))


def import_jax2onnx() -> Any:
    """Imports jax2onnx.

    Raises:
      ImportError: it is not installed.
    """
    try:
        import jax2onnx
    except ImportError as error:
        raise ImportError("the format 'onnx' needs jax2onnx: pip install 'mmjax[onnx]'.") from error
    return jax2onnx


@contextlib.contextmanager
def _silence_jax2onnx() -> Iterator[None]:
    """Hides what jax2onnx says about its own plugins and types."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _describe_refusal(error: Exception) -> str:
    """Names the primitive that the converter worked on, which its frames hold as `eqn`."""
    reason = f"{get_first_line(error)} Export with --format jax instead."
    # From the innermost frame outward: its equation is the one that failed.
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        eqn: Any = frame.f_locals.get("eqn")
        if hasattr(eqn, "primitive"):
            return (
                f"ONNX cannot express the primitive {eqn.primitive.name!r} of "
                f"{describe_origin(eqn)} as this model uses it: {reason}"
            )
    return f"jax2onnx cannot convert the model: {reason}"

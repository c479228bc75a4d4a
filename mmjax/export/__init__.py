"""Trained models as files that run without mmjax: `jax.export` artifacts and ONNX.

`mmjax export RUN --format jax|onnx --out DIR` is `export_run`.
"""

from mmjax.export.export_directory import (
    EXPORT_FORMATS,
    export_run,
    prepare_arrays,
    read_export_spec,
)

__all__ = ["EXPORT_FORMATS", "export_run", "prepare_arrays", "read_export_spec"]

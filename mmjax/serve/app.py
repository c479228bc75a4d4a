"""The web application that serves a trained model."""

import math
import tempfile
import threading
import warnings
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from mmjax.runs.examples import iterate_examples
from mmjax.runs.prediction.table_writers import iterate_records
from mmjax.runs.trained import Trained
from mmjax.serve.request_columns import (
    AcceptedColumns,
    Columns,
    RequestError,
    list_accepted_columns,
    parse_form_request,
    parse_json_request,
)

_MAX_FIELDS = 1000  # fields of a form, files included


def make_app(trained: Trained, *, max_examples: int = 64, max_bytes: int = 16_000_000) -> Any:
    """Makes a FastAPI application that predicts with a trained model.

    - `GET /health` answers {"status": "ok"}.
    - `GET /spec` describes the columns and the tasks.
    - `POST /predict` takes {"examples": [{column: value, ...}, ...]} as JSON, or one example as
      multipart/form-data, whose files are images, recordings, or arrays of `numpy.save`. It answers
      {"predictions": [{"TASK/prediction": ..., ...}, ...], "warnings": [...]}, with the columns of
      `mmjax predict`.

    Invalid requests get a status 4xx and {"detail": the message}. No request can name a
    path, and nothing is unpickled.

    Args:
      trained: the model.
      max_examples: the most examples per request.
      max_bytes: the largest body of a request.

    Raises:
      ImportError: FastAPI is not installed; the message names the extra.
    """
    fastapi = import_fastapi()
    from fastapi.concurrency import run_in_threadpool

    # The interactive documentation would load scripts from another host.
    app = fastapi.FastAPI(title=trained.spec.name, docs_url=None, redoc_url=None)
    accepted = list_accepted_columns(trained.spec)
    server = _Predictor(trained)

    @app.get("/health")
    def report_health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/spec")
    def describe_model() -> dict[str, Any]:
        return _describe_interface(trained) | {"max_examples": max_examples}

    async def predict(request: Any) -> dict[str, Any]:
        body = await _read_body(request, max_bytes)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            columns = parse_json_request(body, accepted, max_examples)
            return await run_in_threadpool(server.predict, columns)
        if kind != "multipart/form-data":
            raise RequestError(415, "send application/json or multipart/form-data.")
        fields = await _parse_form(request, body)
        return await run_in_threadpool(server.predict_form, fields, accepted)

    # FastAPI reads the type of the argument, and this module must not import it to be read.
    predict.__annotations__["request"] = fastapi.Request
    app.post("/predict")(predict)

    @app.exception_handler(RequestError)
    async def answer_error(request: Any, error: Any) -> Any:
        return fastapi.responses.JSONResponse({"detail": str(error)}, error.status)

    return app


def import_fastapi() -> Any:
    """Imports FastAPI and the packages that it needs for forms.

    Raises:
      ImportError: one is not installed; the message names the extra.
    """
    try:
        import fastapi
        import fastapi.responses
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError("serving needs FastAPI: pip install 'mmjax[serve]'.") from error
    return fastapi


class _Predictor:
    """Predicts for one request at a time: the model uses all cores anyway."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.lock = threading.Lock()  # recording warnings is not safe among threads

    def predict_form(
        self, fields: list[tuple[str, str | bytes]], accepted: AcceptedColumns
    ) -> dict[str, Any]:
        """Answers a request whose files are written to a folder of its own."""
        with tempfile.TemporaryDirectory() as folder:
            return self.predict(parse_form_request(fields, accepted, Path(folder)), folder)

    def predict(self, columns: Columns, folder: str = "") -> dict[str, Any]:
        """Answers a request.

        Args:
          columns: {column: values}.
          folder: the folder of its files, which no message shows.

        Raises:
          RequestError: a value does not fit.
        """
        count = len(next(iter(columns.values())))
        size = 1 << (count - 1).bit_length()  # few sizes are compiled
        with self.lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                ((batch, _),) = iterate_examples(self.trained.spec, columns, count)
            except (ValueError, OverflowError) as error:
                # Clients must not learn where the server stores their files.
                message = str(error).replace(f"{folder}/", "file ") if folder else str(error)
                raise RequestError(422, message) from None
            predictions = self.trained.interpret_batch(batch, size)
        records = [_replace_nan(r) for r in iterate_records(predictions.make_columns())]
        return {"predictions": records, "warnings": [str(w.message) for w in caught]}


def _replace_nan(value: Any) -> Any:
    """Replaces NaN, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {name: _replace_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_replace_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _describe_interface(trained: Trained) -> dict[str, Any]:
    """Describes the columns and the tasks of a model."""
    accepted = list_accepted_columns(trained.spec)
    columns = {}
    for name, modality in accepted.modalities.items():
        shape = trained.spec.modalities[modality].describe()
        columns[name] = {"modality": modality, "file": name in accepted.files, "shape": shape}
    tasks = {}
    for name, task in trained.spec.tasks.items():
        tasks[name] = {"kind": task.kind, "classes": list(task.classes), "unit": task.unit}
    return {"columns": columns, "tasks": tasks, "seeds": list(trained.seeds)}


async def _read_body(request: Any, max_bytes: int) -> bytes:
    """Reads the body of a request up to the size limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        # Counted on arrival, since the Content-Length of a request may be missing or wrong.
        if len(body) > max_bytes:
            raise RequestError(413, f"the request is larger than {max_bytes:,} bytes.")
    return bytes(body)


async def _parse_form(request: Any, body: bytes) -> list[tuple[str, str | bytes]]:
    """Parses multipart/form-data into (name, text or content of a file)."""
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    # The body is bounded already, so a single part needs no tighter limit.
    limits = {"max_files": _MAX_FIELDS, "max_fields": _MAX_FIELDS, "max_part_size": len(body) + 1}
    try:
        form = await MultiPartParser(request.headers, stream(), **limits).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RequestError(400, f"the body is not multipart/form-data: {error}") from None
    fields: list[tuple[str, str | bytes]] = []
    for name, value in form.multi_items():
        fields.append((name, value if isinstance(value, str) else await value.read()))
    await form.close()
    return fields

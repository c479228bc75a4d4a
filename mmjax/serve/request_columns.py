"""Converts requests to columns. What a client sends is never used as a path nor unpickled.

Files go into a temporary folder under names that the server chooses, and are read by the same
code as the files of the training split.
"""

import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.kinds import FILE_KINDS, get_columns
from mmjax.data.kinds.media.image_bag import ImageBag
from mmjax.data.spec import Spec

Columns = dict[str, list[Any]]


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
      status: the HTTP status, 4xx.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AcceptedColumns(NamedTuple):
    """The columns that a request may have.

    Attributes:
      modalities: {column: its modality}.
      files: the columns that hold files.
      several: those of them that hold any number of files.
    """

    modalities: Mapping[str, str]
    files: frozenset[str]
    several: frozenset[str]


def list_accepted_columns(spec: Spec) -> AcceptedColumns:
    """Lists the columns that the modalities of a model are read from.

    Example:
      >>> from mmjax.data.dataset import Modality, Preparation
      >>> from mmjax.data.kinds import Image
      >>> preparations = {"photo": Preparation(Image("file"))}
      >>> spec = Spec("pets", {"photo": Modality((8, 8, 3))}, {}, preparations)
      >>> sorted(list_accepted_columns(spec).files)
      ['file']
    """
    modalities: dict[str, str] = {}
    files, several = set[str](), set[str]()
    for m, preparation in spec.preparations.items():
        if isinstance(preparation.kind, FILE_KINDS):
            columns = get_columns(preparation.kind)
            files.update(columns)
            if isinstance(preparation.kind, ImageBag):
                several.update(columns)
        else:
            columns = (m, *(get_columns(preparation.kind) if preparation.kind else ()))
        if preparation.lengths:
            columns = (*columns, preparation.lengths)
        modalities |= dict.fromkeys(columns, m)
    return AcceptedColumns(modalities, frozenset(files), frozenset(several))


def parse_json_request(body: bytes, accepted: AcceptedColumns, max_examples: int) -> Columns:
    """Parses {"examples": [{column: value, ...}, ...]}; columns that an example lacks are None.

    Raises:
      RequestError: the body has another form, too many examples or an unknown column, or a value in
        a column of files.

    Example:
      >>> accepted = AcceptedColumns({"text": "text"}, frozenset(), frozenset())
      >>> parse_json_request(b'{"examples": [{"text": "two"}, {}]}', accepted, 8)
      {'text': ['two', None]}
    """
    examples = _load_examples(body, max_examples)
    names = dict.fromkeys(itertools.chain(*examples))
    _check_names(names, accepted)
    if not names:
        raise RequestError(
            422, f"every example is empty; the columns are {', '.join(accepted.modalities)}."
        )
    for name in accepted.files & names.keys():
        if any(example.get(name) is not None for example in examples):
            raise RequestError(
                422, f"column {name!r} holds files; send them by multipart/form-data."
            )
    return {name: [example.get(name) for example in examples] for name in names}


def _load_examples(body: bytes, max_examples: int) -> list[dict[str, Any]]:
    """Returns the examples of a body in JSON, with any columns.

    Raises:
      RequestError: the body has another form, no examples, or too many.
    """
    try:
        # Deeply nested JSON raises RecursionError, which is not a ValueError.
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not JSON.") from None
    if not isinstance(request, dict) or list(request) != ["examples"]:
        raise RequestError(422, 'the body must be {"examples": [{column: value, ...}, ...]}.')
    examples = request["examples"]
    if not isinstance(examples, list) or not all(isinstance(x, dict) for x in examples):
        raise RequestError(422, '"examples" must be a list of objects {column: value, ...}.')
    if not examples:
        raise RequestError(422, "no examples were given.")
    if len(examples) > max_examples:
        raise RequestError(413, f"{len(examples)} examples; at most {max_examples} per request.")
    return examples


def parse_form_request(
    fields: Sequence[tuple[str, str | bytes]], accepted: AcceptedColumns, folder: Path
) -> Columns:
    """Parses the fields of multipart/form-data as one example.

    Args:
      fields: (column, text or content of a file) in the order of the request.
      accepted: the columns that a request may have.
      folder: an empty folder, into which the files of columns of files are written.

    Raises:
      RequestError: a column is unknown, comes twice, or has a text in place of a file; or a file in
        another column is not an array of `numpy.save`.
    """
    columns: Columns = {}
    for number, (name, value) in enumerate(fields):
        _check_names([name], accepted)
        if name in columns and name not in accepted.several:
            raise RequestError(422, f"column {name!r} comes twice; send one example per request.")
        if name not in accepted.files:
            columns[name] = [_parse_field(name, value)]
            continue
        if isinstance(value, str):
            raise RequestError(422, f"column {name!r} holds files; send it as one.")
        # Not the client's file name, which could lead out of the folder.
        path = folder / str(number)
        path.write_bytes(value)
        if name in accepted.several:
            columns.setdefault(name, [[]])[0].append(str(path))
        else:
            columns[name] = [str(path)]
    if not columns:
        raise RequestError(422, "the form has no fields; send one per column.")
    return columns


def _check_names(names: Any, accepted: AcceptedColumns) -> None:
    for name in names:
        if name not in accepted.modalities:
            known = ", ".join(accepted.modalities)
            raise RequestError(422, f"column {name[:100]!r} is unknown; the columns are {known}.")


def _parse_field(name: str, value: str | bytes) -> Any:
    """Parses a field: a list as JSON, other text unchanged, a file as an array."""
    if isinstance(value, bytes):
        try:
            return np.lib.format.read_array(io.BytesIO(value), allow_pickle=False)
        except Exception:  # NumPy raises errors of many types
            raise RequestError(
                422, f"the file of column {name!r} is not a .npy array of numbers."
            ) from None
    # A number stays text here; it is converted by its column, as a cell of a CSV file is.
    if not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value

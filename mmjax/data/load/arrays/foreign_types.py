"""Converts arrays and tables of JAX, pandas, polars, PyArrow and PyTorch to NumPy's types.

A package is imported only after one of its objects has been passed in.
"""

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import dtypes


def convert_to_numpy(value: Any, what: str) -> Any:
    """Converts an array or table column to a NumPy array, a masked array, or a list.

    Gaps of nullable columns are masked, or None in a list. Whatever is of none of the known
    packages, and not an array, is returned as it is.

    Args:
      value: an array, a column, a frame of numbers, or a list.
      what: what it is, for messages.

    Raises:
      ValueError: beginning with `what`, if a frame has a column that is not numbers, or NumPy has
        no such type.

    Example:
      >>> import jax, pandas
      >>> convert_to_numpy([jax.numpy.float32(1.5), None], "x")
      [1.5, None]
      >>> convert_to_numpy(pandas.Series([3, None], dtype="Int64"), "x").tolist()
      [3, None]
    """
    if isinstance(value, list | tuple):
        if any(map(_needs_conversion, set(map(type, value)))):
            return [convert_cell(cell, what) for cell in value]
        return value
    package = _find_package(type(value))
    try:
        if package is not None:
            value = _CONVERTERS[package](value, what)
        elif hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic):
            value = np.asarray(value)
    except (TypeError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{what} is a {type(value).__name__}, which has no NumPy equivalent: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.matrix):
        value = np.asarray(value)  # the rows of a matrix are matrices again
    if value.dtype == object and value.ndim:
        return _convert_object_array(value, what)
    return _widen_small_types(value)


def convert_cell(value: Any, what: str) -> Any:
    """Converts one cell: a missing one of pandas becomes None, a zero-dimensional array a number.

    Example:
      >>> import pandas
      >>> convert_cell(pandas.NaT, "x") is None
      True
    """
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return value
    converted = convert_to_numpy(value, what)
    is_scalar = isinstance(converted, np.ndarray) and converted.ndim == 0
    return converted.item() if is_scalar and converted.dtype.kind not in "mM" else converted


def is_frame(value: Any) -> bool:
    """Checks whether an object is a table with named columns, of pandas, polars or PyArrow.

    Example:
      >>> import pandas
      >>> is_frame(pandas.DataFrame({"a": [1]})), is_frame({"a": [1]})
      (True, False)
    """
    package, name = _find_package(type(value)), type(value).__name__
    return package in _FRAMES and name in ("DataFrame", "LazyFrame", "Table", "RecordBatch")


def list_frame_columns(frame: Any) -> dict[str, Any]:
    """Returns the columns of a frame by name; names that are not strings become strings.

    Raises:
      ValueError: if several columns have one name.
    """
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    if _find_package(type(frame)) == "pyarrow":
        names, columns = frame.schema.names, frame.columns
    else:
        names = list(frame.columns)
        is_pandas = _find_package(type(frame)) == "pandas"
        columns = [frame.iloc[:, i] if is_pandas else frame[:, i] for i in range(len(names))]
    names = [str(name) for name in names]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the {type(frame).__name__} has several columns named {name!r}.")
    return dict(zip(names, columns, strict=True))


def _find_package(kind: type) -> str | None:
    """Returns the package whose converter takes objects of a type, or None."""
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        package = "jax" if package == "jaxlib" else package
        if package in _CONVERTERS:
            return package
    return None


def _needs_conversion(kind: type) -> bool:
    return _find_package(kind) is not None or (
        hasattr(kind, "__array__") and not issubclass(kind, np.ndarray | np.generic)
    )


def _convert_object_array(array: np.ndarray, what: str) -> Any:
    """Converts the cells of an array of objects; masked ones become None."""
    cells = [convert_cell(cell, what) for cell in np.ma.getdata(array).tolist()]
    absent = np.ma.getmaskarray(array)
    if array.ndim > 1 or not absent.any():
        return cells
    return [None if a else cell for cell, a in zip(cells, absent, strict=True)]


def _widen_small_types(array: np.ndarray) -> np.ndarray:
    """Converts the types that only JAX and PyTorch have, such as bfloat16, to NumPy's own."""
    if array.dtype.kind != "V" or array.dtype.names is not None:  # V: of no kind that NumPy knows
        return array
    if dtypes.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    return array.astype(np.int32) if dtypes.issubdtype(array.dtype, np.integer) else array


def _convert_jax(value: Any, what: str) -> Any:
    return np.asarray(value)


def _convert_torch(value: Any, what: str) -> Any:
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    tensor = tensor.to_dense() if tensor.layout.__str__() != "torch.strided" else tensor
    is_small_float = tensor.is_floating_point() and tensor.element_size() < 4
    return (tensor.float() if is_small_float else tensor).resolve_conj().resolve_neg().numpy()


def _convert_pandas(value: Any, what: str) -> Any:
    if is_frame(value):
        return _stack_columns(value, what)
    import pandas

    if not isinstance(value, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return value  # a cell, such as an interval
    series = pandas.Series(value)
    kind, types = series.dtype, pandas.api.types
    if isinstance(kind, pandas.SparseDtype):
        series = series.sparse.to_dense()
        kind = series.dtype
    if isinstance(kind, np.dtype) and not kind.hasobject:
        return series.to_numpy()
    if isinstance(kind, pandas.DatetimeTZDtype):
        return series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    absent = series.isna().to_numpy()
    is_numeric = types.is_bool_dtype(kind) or types.is_integer_dtype(kind)
    if (is_numeric or types.is_float_dtype(kind)) and not isinstance(kind, pandas.CategoricalDtype):
        target = getattr(kind, "numpy_dtype", np.dtype(np.float64))
        numbers = series.to_numpy(dtype=target, na_value=target.type(0))
        return np.ma.array(numbers, mask=absent) if absent.any() else numbers
    cells = series.astype(object).tolist()
    return [None if a else cell for cell, a in zip(cells, absent, strict=True)]


def _convert_polars(value: Any, what: str) -> Any:
    if is_frame(value):
        return _stack_columns(value, what)
    if not hasattr(value, "is_null"):
        return value
    if value.dtype.is_numeric() or str(value.dtype) == "Boolean":
        absent = value.is_null().to_numpy()
        if str(value.dtype).startswith("Decimal"):
            value = value.cast(float)
        numbers = value.fill_null(False if str(value.dtype) == "Boolean" else 0).to_numpy()
        return np.ma.array(numbers, mask=absent) if absent.any() else numbers
    return value.to_list()


def _convert_pyarrow(value: Any, what: str) -> Any:
    if is_frame(value):
        return _stack_columns(value, what)
    return value.to_pylist() if hasattr(value, "to_pylist") else value.as_py()


def _stack_columns(frame: Any, what: str) -> np.ndarray:
    """Stacks the columns of a frame, all of them numbers, to an array [n, columns]."""
    columns = []
    for name, column in list_frame_columns(frame).items():
        array = convert_to_numpy(column, what)
        array = _convert_numeric_list(array) if isinstance(array, list) else array
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{what} is a {type(frame).__name__} whose column {name!r} is not of numbers but "
                f"of {getattr(column, 'dtype', 'objects')}; leave the column out, or store the "
                "table as Parquet for mmjax.data.from_table, which takes columns of any kind."
            )
        columns.append(array)
    if not columns:
        raise ValueError(f"{what} is a {type(frame).__name__} without columns.")
    stack = np.ma.stack if any(isinstance(c, np.ma.MaskedArray) for c in columns) else np.stack
    return stack(columns, axis=1)


def _convert_numeric_list(cells: list[Any]) -> np.ndarray | list[Any]:
    """Converts a list of numbers and None to a masked array."""
    if not all(cell is None or isinstance(cell, bool | int | float) for cell in cells):
        return cells
    absent = np.array([cell is None for cell in cells], bool)
    return np.ma.array([0 if cell is None else cell for cell in cells], mask=absent)


def _refuse_sparse(value: Any, what: str) -> Any:
    raise ValueError(f"{what} is a sparse {type(value).__name__}; give its toarray().")


_CONVERTERS: dict[str, Callable[[Any, str], Any]] = {
    "jax": _convert_jax,
    "pandas": _convert_pandas,
    "polars": _convert_polars,
    "pyarrow": _convert_pyarrow,
    "scipy": _refuse_sparse,
    "torch": _convert_torch,
}
_FRAMES = ("pandas", "polars", "pyarrow")

"""Parses VALUE of `--set PATH=VALUE`: a literal, a word, or a call. Nothing is evaluated."""

import ast
import functools
import inspect
import re
import warnings
from collections.abc import Iterable
from typing import Any

import fiddle as fdl
from fiddle.experimental import auto_config as fiddle_auto_config

from mmjax.config import constructors, public_names, type_checks, type_hints
from mmjax.config.errors import ConfigError
from mmjax.config.literal_limits import MAX_DEPTH, MAX_LENGTH, check_literal, shorten_for_message
from mmjax.config.typed_calls import (
    check_argument_types,
    check_parameter_names,
    list_callable_parameters,
)

_WORD = re.compile(r"[\w./:+@-]+")
MODULE_AND_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# A string, which is left alone, or module:name outside of strings.
_STRING = r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
_STRING_OR_MODULE = re.compile(_STRING + r"|(\b[A-Za-z_][\w.]*):(?=[A-Za-z_])")
# The colon of module:name is not Python, so it is parsed as an attribute of this name.
_COLON = "__colon__"
_PARTIAL = ("partial", "functools.partial")


def parse_candidates(text: str, annotation: Any = Any) -> list[Any]:
    """Lists the values that a text may mean, the likeliest first.

    A literal means itself, and a call a `fdl.Config`. A word is a string; if a public callable has
    that name, it may be the callable too. The module of `module:name` is imported only if the
    annotation accepts objects and no strings.

    Args:
      text: the value.
      annotation: the annotation of the parameter that gets it; Any if unknown.

    Raises:
      ConfigError: malformed text, or a call of an unknown name or with a wrong argument.

    Example:
      >>> parse_candidates("[1, 2.5]"), parse_candidates("word")
      ([[1, 2.5]], ['word'])
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"the value has {len(text)} characters; it may have {MAX_LENGTH}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on the syntax
            return _parse_candidates(text, annotation)
    except (RecursionError, MemoryError):  # by these Python's parser gives up
        raise ConfigError("the value is nested too deeply.") from None


def _parse_candidates(text: str, annotation: Any) -> list[Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        pass
    else:
        check_literal(value)
        return [value]
    if not _WORD.fullmatch(text):
        return [_convert_node(_parse_expression(text), annotation)]
    if ":" in text:
        imports = MODULE_AND_NAME.fullmatch(text) and type_checks.accepts_objects(annotation)
        return [text, *([resolve_checked_name(text)] if imports else [])]
    return [text, *([resolve_checked_name(text)] if public_names.is_public_name(text) else [])]


def resolve_checked_name(name: str) -> Any:
    """Returns the public callable that a name stands for, or the object `module:name`.

    Raises:
      ConfigError: there is none, or the name has another form.
    """
    if ":" in name and not MODULE_AND_NAME.fullmatch(name):
        raise ConfigError(f"{shorten_for_message(name)} is not of the form module:name.")
    return public_names.resolve_name(name)


def _parse_expression(text: str) -> ast.expr:
    marked = _STRING_OR_MODULE.sub(lambda m: m[1] or f"{m[2]}.{_COLON}.", text)
    try:
        return ast.parse(marked, mode="eval").body
    except SyntaxError as error:
        reason = error.msg
    except ValueError as error:  # such as of null bytes
        reason = str(error)
    raise ConfigError(
        f"cannot read {shorten_for_message(repr(text))}: {reason}. A string needs quotes."
    )


def _convert_node(node: ast.expr, annotation: Any, depth: int = 0) -> Any:
    """Converts a parsed expression made of literals, containers, names and calls to its value."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"the value is nested too deeply; {MAX_DEPTH} levels are the most.")

    items = functools.partial(_convert_elements, annotation, depth)
    match node:
        case ast.Call():
            return _make_call(node, depth)
        case ast.Name() | ast.Attribute():
            return _resolve_nested_name(_join_dotted_name(node), annotation)
        case ast.Tuple(elts=nodes):
            return tuple(items(nodes, range(len(nodes))))
        case ast.List(elts=nodes):
            return items(nodes, range(len(nodes)))
        case ast.Dict(keys=keys, values=nodes) if None not in keys:
            known = [_evaluate_literal(key) for key in keys if key]
            try:
                return dict(zip(known, items(nodes, known), strict=True))
            except TypeError as error:
                raise ConfigError(f"cannot read {_format_source(node)!r}: {error}.") from None
    return _evaluate_literal(node)


def _convert_elements(
    annotation: Any, depth: int, nodes: list[ast.expr], keys: Iterable[Any]
) -> list[Any]:
    """Converts the elements of a container with an annotation, which is at some depth."""
    values = []
    for node, key in zip(nodes, keys, strict=True):
        kind = type_hints.find_element_annotation(annotation, key)
        values.append(_convert_node(node, kind, depth + 1))
    return values


def _evaluate_literal(node: ast.expr) -> Any:
    try:
        # Evaluates constants only: no name is looked up, and nothing is called.
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ConfigError(
            f"cannot read {_format_source(node)!r}: a value is a literal, a name or a call."
        ) from None
    check_literal(value)
    return value


def _resolve_nested_name(name: str, annotation: Any) -> Any:
    """Returns the object that a name inside a call or a container refers to."""
    if (
        ":" in name
        and annotation not in (Any, object)
        and not type_checks.accepts_objects(annotation)
    ):
        raise ConfigError(
            f"{name} stands where {type_hints.format_type(annotation)} is expected; a string needs "
            "quotes."
        )
    return resolve_checked_name(name)


def _make_call(node: ast.Call, depth: int) -> fdl.Buildable:
    """Converts a call to a configuration, and checks its arguments by name and type."""
    name = _join_dotted_name(node.func)
    # The arguments of a partial after the function are those of a call of it.
    make: type[fdl.Buildable] = fdl.Config
    if name in _PARTIAL:
        make, node, name = fdl.Partial, *_unwrap_partial(node)
    function = resolve_checked_name(name)
    if any(isinstance(a, ast.Starred) for a in node.args) or any(not k.arg for k in node.keywords):
        raise ConfigError(
            f"cannot read {_format_source(node)!r}: write the arguments out, without *."
        )
    arguments, keywords = _convert_arguments(node, name, function, depth)
    # A function under `auto_config` is replaced by its own calls, so that their paths can be set.
    if isinstance(function, fiddle_auto_config.AutoConfig) and make is fdl.Config:
        try:
            return function.as_buildable(*arguments, **keywords)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}: {error}") from error
    check_parameter_names(name, function, keywords)
    try:
        config = make(function, *arguments, **keywords)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {str(error).rpartition(': ')[2]}.") from error
    # Again, since fiddle gives positional arguments their names.
    check_parameter_names(name, function, [k for k in config.__arguments__ if isinstance(k, str)])
    check_argument_types(name, config)
    return config


def _convert_arguments(
    node: ast.Call, name: str, function: Any, depth: int
) -> tuple[list[Any], dict[str, Any]]:
    """Converts the arguments of a call by the annotations of the function's parameters."""
    known = list_callable_parameters(name, function)
    # Positional arguments get the annotations in the order of the parameters, further ones that of
    # `*args`.
    kinds = [parameter.annotation for parameter in known.values()]
    further = type_hints.find_variadic_annotation(function, inspect.Parameter.VAR_POSITIONAL)
    kinds += [further] * len(node.args)
    arguments = []
    for argument, kind in zip(node.args, kinds, strict=False):
        arguments.append(_convert_node(argument, kind, depth + 1))
    keywords: dict[str, Any] = {}
    for given in node.keywords:
        keyword = str(given.arg)
        if keyword in keywords:
            raise ConfigError(f"{name} has the parameter {keyword!r} twice.")
        kind = known[keyword].annotation if keyword in known else Any
        keywords[keyword] = _convert_node(given.value, kind, depth + 1)
    return arguments, keywords


def _unwrap_partial(node: ast.Call) -> tuple[ast.Call, str]:
    """Returns the call of the function of `partial(function, ...)`, and its name."""
    if not node.args:
        raise ConfigError(
            f"cannot read {_format_source(node)!r}: write partial(function, argument=value)."
        )
    name = _join_dotted_name(node.args[0])
    function = resolve_checked_name(name)
    is_experiment = isinstance(function, fiddle_auto_config.AutoConfig)
    if is_experiment or constructors.is_data_constructor(function):
        raise ConfigError(
            f"cannot read {_format_source(node)!r}: a partial of a function that makes data or an "
            "experiment cannot be stored; call it."
        )
    return ast.Call(node.args[0], node.args[1:], node.keywords), name


def _join_dotted_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            joined = f"{_join_dotted_name(value)}.{attribute}"
            return joined.replace(f".{_COLON}.", ":")
    raise ConfigError(f"cannot read {_format_source(node)!r}: only a name can be called.")


def _format_source(node: ast.expr) -> str:
    return shorten_for_message(ast.unparse(node).replace(f".{_COLON}.", ":"))

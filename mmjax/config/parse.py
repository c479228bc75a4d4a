"""Reads VALUE of `--set PATH=VALUE`: a literal, a word, or a call. Nothing is ever evaluated."""

import ast
import inspect
import re
from collections.abc import Iterable
from typing import Any

import fiddle as fdl
from fiddle.experimental import auto_config as fiddle_auto_config

from mmjax.config import hints, names
from mmjax.config.errors import ConfigError

WORD = re.compile(r"[\w./:+@-]+")
# A string, which is left alone, or module:name outside of strings.
STRING = r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
MODULE_NAME = re.compile(STRING + r"|(\b[A-Za-z_][\w.]*):(?=[A-Za-z_])")
COLON = "__colon__"


def readings(text: str) -> list[Any]:
    """What the text may mean, the likeliest first.

    A literal means itself, and a call a `fdl.Config`. A word is a string; where a public callable
    has that name, it may be the callable too.

    Raises:
      ConfigError: malformed text, or a call of an unknown name or with a wrong argument.
    """
    try:
        return [ast.literal_eval(text.strip())]
    except (ValueError, SyntaxError, TypeError):
        pass
    if WORD.fullmatch(text):
        return [text, *([names.resolve(text)] if ":" in text or names.is_public(text) else [])]
    return [_value(_tree(text))]


def _tree(text: str) -> ast.expr:
    marked = MODULE_NAME.sub(lambda m: m[1] or f"{m[2]}.{COLON}.", text.strip())
    try:
        return ast.parse(marked, mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"cannot read {text!r}: {error.msg}. A string needs quotes.") from None


def _value(node: ast.expr) -> Any:
    """The value of a parsed expression made of literals, containers, names and calls."""
    match node:
        case ast.Call():
            return _call(node)
        case ast.Name() | ast.Attribute():
            return names.resolve(_dotted(node))
        case ast.Tuple(elts=items):
            return tuple(map(_value, items))
        case ast.List(elts=items):
            return list(map(_value, items))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {ast.literal_eval(k): _value(v) for k, v in zip(keys, values, strict=True) if k}
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ConfigError(
            f"cannot read {_source(node)!r}: a value is a literal, a name or a call."
        ) from None


def _call(node: ast.Call) -> fdl.Buildable:
    """A call as a configuration, its arguments checked by name and type."""
    name = _dotted(node.func)
    function = names.resolve(name)
    shown = name.replace("." + COLON + ".", ":")
    if any(isinstance(a, ast.Starred) for a in node.args) or any(not k.arg for k in node.keywords):
        raise ConfigError(f"cannot read {_source(node)!r}: write the arguments out, without *.")
    arguments = [_value(a) for a in node.args]
    keywords = {str(k.arg): _value(k.value) for k in node.keywords}
    if isinstance(function, fiddle_auto_config.AutoConfig):
        return function.as_buildable(*arguments, **keywords)
    _check_names(shown, function, keywords)
    try:
        config = fdl.Config(function, *arguments, **keywords)
    except TypeError as error:
        raise ConfigError(f"{shown}: {str(error).rpartition(': ')[2]}.") from error
    _check_names(shown, function, [k for k in config.__arguments__ if isinstance(k, str)])
    _check_types(shown, config)
    return config


def _check_names(name: str, function: Any, given: Iterable[str]) -> None:
    if hints.takes(function, inspect.Parameter.VAR_KEYWORD):
        return
    valid = list(hints.parameters(function))
    for keyword in given:
        if keyword not in valid:
            near = names.did_you_mean(keyword, valid)
            takes = f" It takes: {', '.join(valid) or 'none'}."
            raise ConfigError(f"{name} has no parameter '{keyword}'.{near}{takes}")


def _check_types(name: str, config: fdl.Buildable) -> None:
    known = hints.parameters(fdl.get_callable(config))
    for argument, value in config.__arguments__.items():
        if argument in known:
            check_type(f"{name}({argument}=...)", known[argument].annotation, value)


def check_type(path: str, annotation: Any, value: Any) -> None:
    """Refuses a value that the annotation does not take."""
    if not hints.accepts(annotation, value):
        shown = _show(value)
        raise ConfigError(f"{path} is {shown}; expected {hints.show_type(annotation)}.")


def _show(value: Any) -> str:
    if isinstance(value, fdl.Buildable):
        return f"{names.public_name(fdl.get_callable(value))}(...)"
    return names.public_name(value) if callable(value) else repr(value)


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            joined = f"{_dotted(value)}.{attribute}"
            return joined.replace(f".{COLON}.", ":")
    raise ConfigError(f"cannot read {_source(node)!r}: only a name can be called.")


def _source(node: ast.expr) -> str:
    return ast.unparse(node).replace(f".{COLON}.", ":")

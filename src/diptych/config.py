"""Frozen dataclasses from and to plain data: TOML, JSON, `key=value` options.

A config class lives beside the code it configures; this file only knows how to fill one. Unknown keys are refused
with the nearest name, types are checked, and what is printed is complete: every field, defaults included.
"""

import dataclasses
import difflib
import json
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from diptych.errors import ConfigError

T = TypeVar("T")


def from_dict(cls: type[T], data: Mapping[str, Any], *, where: str = "") -> T:
    """Fill a config class from nested plain data.

    Args:
        cls: a dataclass; nested dataclasses are nested tables. In a union of several, the table's `kind` key chooses
            the one whose `kind` field has that default; without the key it is the first. A `kind` of "module:name" is
            a dataclass of somebody else's, whose module is imported already: nothing is imported here, as the data may
            be a stranger's.
        data: plain data, as `tomllib` or `json` return it.
        where: dotted prefix for messages, e.g. "train".

    Raises:
        ConfigError: an unknown key (with the nearest name), a missing one, or a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'a config'} must be a table of options. Got {type(data).__name__}.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # pyright: ignore[reportArgumentType]
    for key in data:
        if key not in fields:
            raise ConfigError(unknown_name(_join(where, key), _join(where, ""), fields, "an option"))
    missing = [
        _join(where, name)
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given and has no default.")
    return cls(**{key: _convert(hints[key], value, _join(where, key)) for key, value in data.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested plain data, complete; fields that are None are left out (TOML has no null)."""
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            plain[field.name] = _plain(value)
    return plain


def read_toml(path: Path) -> dict[str, Any]:
    """Plain data of a TOML file.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path} must be a recipe file, and no such file exists.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a recipe: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} must be TOML: {error}.") from None


def to_toml(config: Any) -> str:
    """A config as TOML text that `read_toml` and `from_dict` turn back into an equal one."""
    lines: list[str] = []
    _write_table(to_dict(config), "", lines)
    return "\n".join(lines).strip() + "\n"


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain data with `dotted.key=value` options put over it; values are read as TOML, else as a string.

    Raises:
        ConfigError: an option without "=", or one that goes through a value as if it were a table.
    """
    merged = json.loads(json.dumps(data))
    for option in overrides:
        key, equals, text = option.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set takes key=value, e.g. train.batch_size=512. Got {option!r}.")
        *tables, last = key.strip().split(".")
        table = merged
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {key}: {name} is a value, not a table.")
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[last] = text
    return merged


def unknown_name(name: str, prefix: str, options: typing.Iterable[str], kind: str) -> str:
    """One line for a name that is not among the options, with the nearest one.

    Args:
        name: what came, with its prefix.
        prefix: what stands before every option, e.g. "train.".
        options: the names that would do, without the prefix.
        kind: e.g. "an option" or "a model".
    """
    names = sorted(options)
    nearest = difflib.get_close_matches(name.removeprefix(prefix), names, n=1)
    hint = f"Did you mean {prefix}{nearest[0]}? " if nearest else ""
    return f"{name} is not {kind}. {hint}Options: {', '.join(names)}."


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table. Got {value!r}.")
        own = "kind" in hint.__dataclass_fields__  # where it is an option like any other
        return from_dict(hint if own else _imported_class(value, where) or hint, value, where=where)
    if origin in (typing.Union, types.UnionType):
        classes = [choice for choice in typing.get_args(hint) if dataclasses.is_dataclass(choice)]
        if len(classes) > 1 and isinstance(value, Mapping):
            cls = _imported_class(value, where) or _class_of_kind(classes, value, where)
            return from_dict(cls, value, where=where)
        for choice in typing.get_args(hint):
            if choice is type(None) and value is None:
                return None
            if choice is not type(None) and _fits(choice, value):
                return _convert(choice, value, where)
        raise ConfigError(f"{where} must be {_describe(hint)}. Got {value!r}.")
    if not _fits(hint, value):
        raise ConfigError(f"{where} must be {_describe(hint)}. Got {value!r}.")
    if origin is tuple:
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        item = typing.get_args(hint)[1]
        return {k: _convert(item, v, _join(where, k)) for k, v in value.items()}
    if hint is float:
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where} must be at most 1.8e308. Got a number with more digits.") from None
    return Path(value) if hint is Path else value


def _class_of_kind(classes: Sequence[Any], table: Mapping[str, Any], where: str) -> Any:
    by_kind = {cls.__dataclass_fields__["kind"].default: cls for cls in classes}
    kind = table.get("kind", next(iter(by_kind)))
    if kind not in list(by_kind):  # a list compares where a dict would hash: the value is any TOML
        options = ", ".join(repr(k) for k in by_kind)
        raise ConfigError(f"{_join(where, 'kind')} must be one of {options}. Got {kind!r}.")
    return by_kind[kind]


def _imported_class(table: Mapping[str, Any], where: str) -> Any:
    """The class of somebody else's that a table names as its kind; None where it names none."""
    kind, option = table.get("kind"), _join(where, "kind")
    if not isinstance(kind, str) or ":" not in kind:
        return None
    module, _, name = kind.partition(":")
    if module not in sys.modules:
        raise ConfigError(
            f"{option} names code that is not diptych's, {kind}, and reading a file imports none. If you trust it, "
            f"import {module} first; for a command, set DIPTYCH_ALLOW_CODE={module} in its environment."
        )
    cls: Any = getattr(sys.modules[module], name, None)
    # What is imported anyway, such as os, must not be had by its name: a class of ours tells that it is meant.
    is_config = isinstance(cls, type) and dataclasses.is_dataclass(cls)
    fields = {field.name: field.default for field in dataclasses.fields(cls)} if is_config else {}
    if fields.get("kind") != kind:
        raise ConfigError(f'{option} names {kind}, which must be a dataclass with `kind: str = "{kind}"`.')
    return cls


def _fits(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if dataclasses.is_dataclass(hint) or origin is dict:
        return isinstance(value, Mapping)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float)
    if hint is Path:
        return isinstance(value, str | Path)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(v) for v in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in typing.get_args(hint) if a is not type(None))
    if origin is tuple:
        return f"a list, each item {_describe(typing.get_args(hint)[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a table"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", Path: "a path"}
    return names.get(hint, str(hint))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def _write_table(table: Mapping[str, Any], name: str, lines: list[str]) -> None:
    plain = {k: v for k, v in table.items() if not _holds_tables(v)}
    if name and (plain or not table):
        lines += ["", f"[{name}]"]
    lines += [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            _write_table(value, _join(name, key), lines)
        elif _holds_tables(value):
            for item in value:
                lines += ["", f"[[{_join(name, key)}]]", *(f"{k} = {_toml_value(v)}" for k, v in item.items())]


def _holds_tables(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # a string, number or boolean in JSON is also TOML

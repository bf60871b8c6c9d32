"""Code that a user names: `module:name` in a recipe, from a package that is not ours.

Naming code runs it. It is imported where somebody says so in a recipe, never because the files of a model name it
(`config.from_dict` looks only among what is imported already).
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from diptych.errors import ConfigError


def is_outside(name: object) -> bool:
    """Whether a value of an option names code, as `module:name`."""
    return isinstance(name, str) and ":" in name


def named(name: str, what: str) -> Callable[..., Any]:
    """A function or class by its name; its module is imported.

    Args:
        name: "module:name"; the module must be importable in every process that works, on each machine.
        what: that asks for it, for messages, e.g. "train.schedule".

    Raises:
        ConfigError: it is no such name, the module cannot be imported, has nothing of that name, or it is not callable.
    """
    module, _, attribute = name.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ConfigError(f'{what} must be named as "module:name", e.g. "mypackage.losses:my_loss". Got {name!r}.')
    found = import_module(module, what)
    value = getattr(found, attribute, None)
    if value is None:
        raise ConfigError(f"{what} names {name}, and the module {module} has nothing of that name. Is it spelt so?")
    if not callable(value):
        raise ConfigError(f"{what} names {name}, which must be a function or a class. Got {type(value).__name__}.")
    return value


def check_call(function: Callable[..., Any], name: str, how: str, /, *arguments: Any, **options: Any) -> None:
    """Refuse code of the user's that cannot be called as it will be.

    Args:
        function: that `named` gave.
        name: of it, for messages.
        how: it is called, for messages, e.g. "(groups, betas=, epsilon=)".
        arguments: that it will be given; only their number counts.
        options: likewise, by name.

    Raises:
        ConfigError: it takes others.
    """
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{name} is called as {how}, which it does not take: {error}.") from None
    except ValueError:  # not of Python: nobody knows before
        return


def check_has(thing: object, names: Sequence[str], what: str) -> None:
    """Refuse a thing of the user's that lacks attributes.

    Args:
        thing: to be looked at.
        names: of what is asked.
        what: it is, for messages, e.g. "an image tower's config".

    Raises:
        ConfigError: some are missing; all of them are named.
    """
    if missing := [name for name in names if not hasattr(thing, name)]:
        owner = (thing if isinstance(thing, type) else type(thing)).__name__
        asked = f"{what} must have {', '.join(names)} (docs/how-to/extend.md)"
        raise ConfigError(f"{asked}. That of {owner} has no {', '.join(missing)}.")


def import_module(name: str, what: str) -> ModuleType:
    """A module by its dotted name.

    Args:
        name: of the module.
        what: see `named`.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module of others may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{what} names the module {name}, which cannot be imported: {reason.rstrip('.')}. Install its package in "
            "this environment, or put its folder in PYTHONPATH."
        ) from error


def import_kinds(plain: Any, where: str = "") -> None:
    """Import what the tables of a recipe name as their `kind`; `config.from_dict` then finds it.

    Args:
        plain: plain data, as `config.read_toml` gives it.
        where: dotted prefix for messages.

    Raises:
        ConfigError: see `named`.
    """
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            name = f"{where}.{key}" if where else key
            if key == "kind" and is_outside(value):
                named(value, name)
            import_kinds(value, name)
    elif isinstance(plain, Sequence) and not isinstance(plain, str):
        for value in plain:
            import_kinds(value, where)

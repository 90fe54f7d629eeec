"""Checks jaxtyping annotations while tests run: names of dimensions must agree within a call, and dtypes must be right.

Only annotations that are arrays are checked (alone, in a union, or in a returned tuple); everything else is mypy's. The
pytrees of types.py are left out, because their leaves are also shardings and shapes.
"""

import functools
import inspect
import pathlib
import typing
from collections.abc import Callable
from types import UnionType
from typing import Any

import jaxtyping

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "chestx_jax"
# Command lines and the ground modules have no arrays; types.py holds the pytrees.
SKIPPED = ("types", "__main__", "errors", "config", "cli", "progress", "metrics")


def install() -> None:
    """Check every module of the package that is imported from here on."""
    modules = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if len(parts) > 1 and parts[-1] not in SKIPPED:
            modules.append(".".join(parts))
    jaxtyping.install_import_hook(modules, f"{__name__}.checked")


def checked(function: Callable) -> Callable:
    """The type checker that jaxtyping applies to every function: raises where an array does not fit its annotation."""
    signature = inspect.signature(function)
    if function.__qualname__.endswith("__init__"):  # of a dataclass, whose leaves may be shardings or shapes
        return function

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        for name, value in bound.arguments.items():
            _check(value, signature.parameters[name].annotation, name)
        result = function(*arguments, **named)
        _check(result, signature.return_annotation, "the result")
        return result

    return call


def _check(value: Any, hint: Any, name: str) -> None:
    if typing.get_origin(hint) is tuple and isinstance(value, tuple):
        hints = typing.get_args(hint)
        if len(hints) == len(value) and Ellipsis not in hints:
            for i, (item, item_hint) in enumerate(zip(value, hints, strict=True)):
                _check(item, item_hint, f"{name}[{i}]")
        return
    arms = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    if all(_is_array(arm) or arm is type(None) for arm in arms) and not any(isinstance(value, arm) for arm in arms):
        raise TypeError(f"{name} is not {hint}")


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)

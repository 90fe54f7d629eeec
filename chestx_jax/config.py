"""Typed configs: nested mappings in, frozen dataclasses out, and one sentence for whatever does not fit.

A config file writes nested dicts: what it changes of the dataclasses' defaults. `from_defaults` makes of them a
`ml_collections.ConfigDict` with every field, which the command line may set; `to_dataclass` makes of that the frozen
dataclasses that the package uses, so that every field has one type, one range and one default.
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from ml_collections import config_dict

from chestx_jax.errors import UserError, nearest

T = TypeVar("T")
_INT32 = 2**31 - 1
SEED_LIMIT = 2**32 - 1  # numpy, JAX and Grain all take seeds up to this


def bounded(
    default: Any = dataclasses.MISSING,
    *,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a range that `to_dataclass` enforces (element by element where the field is a tuple): from
    `min` to `max`, `above` and `below` being bounds that are left out themselves. A number must be finite unless
    `max` is infinite, and a whole number without a `max` fit into 32 bits, as sizes and counts of arrays do."""
    return dataclasses.field(default=default, metadata={"range": Range(min, max, above, below)})


class Range(NamedTuple):
    """The bounds of a number; None is no bound."""

    min: float | None
    max: float | None
    above: float | None
    below: float | None

    def check(self, value: Any, where: str) -> None:
        """Raise UserError for a number, or a number of a tuple, outside of the range."""
        if isinstance(value, tuple):
            for i, item in enumerate(value):
                self.check(item, f"{where}[{i}]")
            return
        if isinstance(value, bool) or not isinstance(value, int | float):  # the other arms of a union
            return
        bounds = (
            (self.min is not None and value < self.min, f"at least {self.min}"),
            (self.max is not None and value > self.max, f"at most {self.max}"),
            (self.above is not None and value <= self.above, f"above {self.above}"),
            (self.below is not None and value >= self.below, f"below {self.below}"),
            (isinstance(value, float) and math.isinf(value) and self.max != math.inf, "a finite number"),
            (isinstance(value, int) and self.max is None and abs(value) > _INT32, f"at most {_INT32}"),
        )
        for outside, wanted in bounds:
            if outside:
                raise UserError(f"{where} is {value!r} but must be {wanted}.")


def to_dataclass(
    cls: type[T], mapping: Mapping[str, Any] | config_dict.ConfigDict, where: str = "config", default: T | None = None
) -> T:
    """Build the (nested) dataclass `cls` from a (nested) mapping.

    What the mapping leaves out, or has as None where the field cannot be None, is as in `default` (an instance of
    `cls`) or has the field's own default; a nested mapping changes the outer field's default, not that of its own
    class. Accepts int for float, lists for tuples, mappings for nested dataclasses and instances of the right dataclass
    as they are; a bool is never a number. Handles unions, `Literal`, `tuple[X, ...]` and `tuple[X, Y]`. What files of
    earlier versions hold, `cls.former_fields` where it has such a class variable, is passed over.

    Raises: UserError naming the full dotted path under `where`, for an unknown field (with the nearest right one), a
    missing one, a value of the wrong type or out of range, and for whatever `cls.__post_init__` raises.
    """
    values = _items(mapping, where)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values.keys() - getattr(cls, "former_fields", frozenset()):
        if key not in fields:
            raise UserError(unknown_field(f"{where}.{key}", _field_paths(cls, where)))
    hints = typing.get_type_hints(cls)
    built = {}
    for name, field in fields.items():
        path = f"{where}.{name}"
        built[name] = _default(field) if default is None else getattr(default, name)
        if name in values and (values[name] is not None or types.NoneType in _arms(hints[name])):
            built[name] = convert(values[name], hints[name], path, built[name])
            if "range" in field.metadata:
                field.metadata["range"].check(built[name], path)
        elif built[name] is dataclasses.MISSING:
            raise UserError(f"{path} is missing: set it to {_describe(hints[name])}.")
    try:
        return cls(**built)
    except (UserError, ValueError) as error:  # the dataclass's own checks of fields against each other
        raise UserError(f"{where}: {error}") from error


def to_dict(config: Any) -> Any:
    """The inverse of `to_dataclass`: plain dicts, lists and scalars that JSON can hold."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return [to_dict(value) for value in config] if isinstance(config, list | tuple) else config


def from_defaults(cls: type, *changes: Mapping[str, Any]) -> config_dict.ConfigDict:
    """Every field of the dataclass `cls` as a ConfigDict: its default, changed by each of the nested `changes` in turn.

    Fields that `cls.open_fields` (dotted paths, where it has such a class variable) names and no change sets are None,
    which `to_dataclass` reads as the default that it is given: so it can be told what was set.

    Raises: UserError as `to_dataclass` does.
    """
    config: Any = None
    for change in changes or ({},):
        config = to_dataclass(cls, change, default=config)
    fields = _config_dict(config)
    for path in getattr(cls, "open_fields", ()):
        *groups, name = path.split(".")
        if not any(_holds(change, path.split(".")) for change in changes):
            group = functools.reduce(getattr, groups, fields)
            del group[name]
            group[name] = config_dict.FieldReference(None, object)
    return fields


def _holds(mapping: Any, path: Sequence[str]) -> bool:
    """Whether a nested mapping sets the field at a path (a group that is set as a whole sets all its fields)."""
    for name in path:
        if not isinstance(mapping, Mapping | config_dict.ConfigDict):
            return True
        if name not in mapping:
            return False
        mapping = mapping[name]
    return True


def _config_dict(config: Any) -> Any:
    """A typed value for the command line: dataclasses as ConfigDicts, in tuples too."""
    if isinstance(config, tuple):
        return tuple(map(_config_dict, config))
    if not dataclasses.is_dataclass(config):
        return config
    hints = typing.get_type_hints(type(config))
    fields = {name: _config_dict(value) for name, value in vars(config).items()}
    # ConfigDict fixes a field's type to that of its value; a union's field must take values of the other types as well.
    untyped = {name: config_dict.FieldReference(fields[name], object) for name in fields if len(_arms(hints[name])) > 1}
    return config_dict.ConfigDict(fields | untyped)


def _field_paths(cls: type, where: str, inside: tuple[type, ...] = ()) -> list[str]:
    """Dotted paths of every field of a dataclass and of those nested in it; one nested in itself only once."""
    hints = typing.get_type_hints(cls)
    paths = []
    for field in dataclasses.fields(cls):
        path = f"{where}.{field.name}"
        paths.append(path)
        for arm in _arms(hints[field.name]):
            if dataclasses.is_dataclass(arm) and arm not in (cls, *inside):
                paths += _field_paths(typing.cast(type, arm), path, (cls, *inside))
    return paths


def unknown_field(path: str, known: Sequence[str]) -> str:
    """One sentence for a misspelt field: siblings are tried first, then the same name elsewhere, then whole paths."""
    where, _, name = path.rpartition(".")
    siblings = [other for other in known if other.rpartition(".")[0] == where]
    for candidates in (siblings, known):
        near = nearest(name, [other.rpartition(".")[2] for other in candidates])
        if same_name := [other for other in candidates if other.rpartition(".")[2] == near]:
            return f"{path} is not a field: did you mean {nearest(path, same_name, cutoff=0.0)}?"
    if near := nearest(path, known, cutoff=0.8):
        return f"{path} is not a field: did you mean {near}?"
    names = ", ".join(sorted(other.rpartition(".")[2] for other in siblings))
    return f"{path} is not a field: {where} has {names or 'no fields'}."


def _items(mapping: Any, where: str) -> dict[str, Any]:
    """The mapping's items, field references resolved."""
    if not isinstance(mapping, Mapping | config_dict.ConfigDict):
        raise UserError(f"{where} is {mapping!r} but must be a group of fields.")
    return dict(mapping.items())


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _arms(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, else the hint itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def convert(value: Any, hint: Any, where: str, default: Any = None) -> Any:
    """`value` as an instance of the type `hint`, as in `to_dataclass`; a mapping changes `default`.

    Raises: UserError that names `where`.
    """
    arms = _arms(hint)
    if len(arms) > 1:
        return _convert_union(value, arms, where, default)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _convert_literal(value, arguments, where)
    if origin is tuple:
        return _convert_tuple(value, arguments, where)
    if not dataclasses.is_dataclass(hint):
        return _convert_scalar(value, hint, where)
    cls = typing.cast(type, hint)
    if isinstance(value, cls):
        return value
    return to_dataclass(cls, value, where, default if isinstance(default, cls) else None)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is float and is_number:
        try:
            number = float(value)
        except OverflowError as error:  # a whole number of hundreds of digits
            raise UserError(f"{where} is too large: set it to a number below 1e308.") from error
        if math.isnan(number):
            raise UserError(f"{where} is not a number (NaN): set it to a number.")
        return number
    if hint is int and is_number and isinstance(value, numbers.Integral):
        return int(value)
    if hint in (bool, str, types.NoneType) and type(value) is hint:
        return value
    raise UserError(f"{where} is {value!r} but must be {_describe(hint)}.")


def _convert_union(value: Any, arms: tuple[Any, ...], where: str, default: Any) -> Any:
    if value is None and types.NoneType in arms:
        return None
    others = [arm for arm in arms if arm is not types.NoneType]
    # A group of fields can only mean an arm that has fields; with one arm left the error names the inner path.
    if isinstance(value, Mapping | config_dict.ConfigDict):
        others = [arm for arm in others if dataclasses.is_dataclass(arm)] or others
    if len(others) == 1:
        return convert(value, others[0], where, default)
    for arm in others:
        try:
            return convert(value, arm, where, default)
        except UserError:
            continue
    raise UserError(f"{where} is {value!r} but must be {' or '.join(map(_describe, arms))}.")


def _convert_literal(value: Any, options: tuple[Any, ...], where: str) -> Any:
    for option in options:
        if type(value) is type(option) and value == option:
            return option
    near = nearest(value, [option for option in options if isinstance(option, str)]) if isinstance(value, str) else None
    hint = f"did you mean {near!r}? " if near else ""
    raise UserError(f"{where} is {value!r}: {hint}choose one of {', '.join(map(repr, options))}.")


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where} is {value!r} but must be a list of values.")
    hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(value) != len(hints):
        raise UserError(f"{where} has {len(value)} values but needs {len(hints)}.")
    return tuple(convert(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, hints, strict=True)))


def _describe(hint: Any) -> str:
    """A type in words a user of the command line reads."""
    names = {float: "a number", int: "a whole number", bool: "True or False", str: "a text", types.NoneType: "None"}
    arms = _arms(hint)
    if len(arms) > 1:
        return " or ".join(map(_describe, arms))
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if origin is tuple:
        return "a list of values"
    if dataclasses.is_dataclass(hint):
        return "a group of fields"
    return names.get(hint, getattr(hint, "__name__", str(hint)))

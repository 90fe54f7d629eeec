"""Typed configs: nested mappings in, frozen dataclasses out, and one sentence for whatever does not fit.

Configs are written as `ml_collections.ConfigDict` (so that any field can be set on the command line) and used as frozen
dataclasses (so that every field has a type, a range and one place where it is read). This file is the bridge.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import numbers
import pathlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from absl import flags
from ml_collections import config_dict, config_flags

from chestx_jax.errors import UserError

T = TypeVar("T")


def bounded(
    default: Any = dataclasses.MISSING,
    *,
    min: float | None = None,
    max: float | None = None,
    exclusive_min: bool = False,
    exclusive_max: bool = False,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A dataclass field with a range that `to_dataclass` enforces (element by element where the field is a tuple).

    Leave `default` out for a required field. The bounds are kept in the field's metadata under the argument names.
    """
    bounds = {"min": min, "max": max, "exclusive_min": exclusive_min, "exclusive_max": exclusive_max}
    metadata = {**bounds, "choices": None if choices is None else tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


def to_dataclass(cls: type[T], mapping: Mapping[str, Any] | config_dict.ConfigDict, where: str = "config") -> T:
    """Build the (nested) dataclass `cls` from a (nested) mapping.

    Accepts int for float, lists for tuples, mappings for nested dataclasses and instances of the right dataclass as
    they are; a bool is never a number. Handles unions, `Literal`, `tuple[X, ...]`, `tuple[X, Y]` and `dict[str, X]`.

    Raises: UserError naming the full dotted path under `where`, for an unknown field (with the nearest right one), a
    missing one, a value of the wrong type or out of range, and for whatever `cls.__post_init__` raises.
    """
    values = _items(mapping, where)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UserError(unknown_field(f"{where}.{key}", field_paths(cls, where)))
    hints = typing.get_type_hints(cls)
    built = {}
    for name, field in fields.items():
        path = f"{where}.{name}"
        if name in values:
            built[name] = _convert(values[name], hints[name], path)
            _check_range(built[name], field.metadata, path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{path} is missing: set it to {_describe(hints[name])}.")
    try:
        return cls(**built)
    except (UserError, ValueError) as error:  # the dataclass's own checks of fields against each other
        raise UserError(f"{where}: {error}") from error


def to_dict(config: Any) -> Any:
    """The inverse of `to_dataclass`: plain dicts, lists and scalars that JSON can hold."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    return config


def fingerprint(config: Any) -> str:
    """SHA-256 (hex) of the config's canonical JSON: equal for equal configs, on any machine and in any field order."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_config(flag_value: str, overrides: Sequence[str] = ()) -> config_dict.ConfigDict:
    """Load `path.py` or `path.py:preset` (its `get_config(preset)`) and apply overrides such as `sft.z_loss=1e-5`.

    The rules are those of `--config=path.py:preset --config.sft.z_loss=1e-5`. The result is locked: no new fields.

    Raises: UserError for a missing file, an unknown field (with the nearest right one), a value of the wrong type.
    """
    path = pathlib.Path(flag_value.partition(":")[0])
    if not path.is_file():
        beside = {other.stem: other for other in path.parent.glob("*.py")}
        near = nearest(path.stem, beside)
        hint = f"did you mean {beside[near]}?" if near else "give the path of a .py file with a get_config function."
        raise UserError(f"There is no config file {path}: {hint}")
    # Without the overrides first, so that their names can be checked against what there is.
    check_overrides(_parsed(flag_value, ()), [override.partition("=")[0] for override in overrides])
    return _parsed(flag_value, overrides)


def _parsed(flag_value: str, overrides: Sequence[str]) -> config_dict.ConfigDict:
    """What `--config=flag_value --config.override …` gives, by flags that nobody else sees."""
    values = flags.FlagValues()
    arguments = ["", f"--config={flag_value}", *(f"--config.{override}" for override in overrides)]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        # ml_collections hands on a ValueError of get_config (an unknown preset, say) as the text of its traceback.
        in_file = len(lines) > 1 and "whilst parsing config file" in lines[0]
        raise UserError(f"{flag_value}: {lines[-1].partition(': ')[2]}" if in_file else lines[0]) from error
    return values["config"].value


def untyped_field(value: Any) -> config_dict.FieldReference:
    """A ConfigDict field that overrides may set to a value of another type, as where a text or a group of fields may
    stand: `config.init = loose(stage)` takes both `--config.init=hf:DIR` and `--config.init.steps=3`."""
    return config_dict.FieldReference(value, field_type=object)


def check_overrides(config: config_dict.ConfigDict, paths: Iterable[str], where: str = "config") -> None:
    """Raise a UserError for the first dotted path that names no field of `config`, or one whose type is not known."""
    known = list(_config_paths(config, where))
    for path in paths:
        full = f"{where}.{path}"
        if full not in known:
            raise UserError(unknown_field(full, known))
        holder = config
        *parents, name = path.split(".")
        for parent in parents:
            holder = holder[parent]
        if holder.get_type(name) is types.NoneType:
            raise UserError(
                f"{full} is None in the config file and cannot be set on the command line: "
                "declare it there as ml_collections.config_dict.placeholder(type)."
            )


def _config_paths(config: config_dict.ConfigDict, where: str) -> Iterable[str]:
    for key, value in config.items(preserve_field_references=True):
        yield f"{where}.{key}"
        if isinstance(value, config_dict.FieldReference) and not _is_unfilled(value):
            value = value.get()
        if isinstance(value, config_dict.ConfigDict):
            yield from _config_paths(value, f"{where}.{key}")


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `names` that `name` most likely meant (case ignored), or None where none is close."""
    folded = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def choose(options: Mapping[str, T], name: str, what: str) -> T:
    """`options[name]`, or a UserError that lists the names and suggests the nearest; `what` says what is chosen."""
    if name in options:
        return options[name]
    near = nearest(name, options)
    hint = f"did you mean {near!r}? " if near else ""
    raise UserError(f"There is no {what} {name!r}: {hint}choose one of {', '.join(map(repr, sorted(options)))}.")


def field_paths(cls: type, where: str, inside: tuple[type, ...] = ()) -> list[str]:
    """Dotted paths of every field of a dataclass and of those nested in it; one nested in itself only once."""
    hints = typing.get_type_hints(cls)
    paths = []
    for field in dataclasses.fields(cls):
        path = f"{where}.{field.name}"
        paths.append(path)
        for arm in _arms(hints[field.name]):
            if dataclasses.is_dataclass(arm) and arm not in (cls, *inside):
                paths += field_paths(typing.cast(type, arm), path, (cls, *inside))
    return paths


def unknown_field(path: str, known: Sequence[str]) -> str:
    """One sentence for a misspelt field: siblings are tried first, then the same name elsewhere, then whole paths."""
    where, _, name = path.rpartition(".")
    siblings = {
        known_path.rpartition(".")[2]: known_path for known_path in known if known_path.rpartition(".")[0] == where
    }
    if near := nearest(name, siblings):
        return f"{path} is not a field: did you mean {siblings[near]}?"
    anywhere = {known_path.rpartition(".")[2]: known_path for known_path in reversed(known)}
    if near := nearest(name, anywhere):
        return f"{path} is not a field: did you mean {anywhere[near]}?"
    if near := nearest(path, known, cutoff=0.8):
        return f"{path} is not a field: did you mean {near}?"
    return f"{path} is not a field: {where} has {', '.join(sorted(siblings)) or 'no fields'}."


def _items(mapping: Any, where: str) -> dict[str, Any]:
    """The mapping's items with field references resolved; placeholders left unfilled read as None."""
    if not isinstance(mapping, Mapping | config_dict.ConfigDict):
        raise UserError(f"{where} is {mapping!r} but must be a group of fields.")
    try:
        return dict(mapping.items())
    except config_dict.RequiredValueError as error:
        empty = [key for key, value in mapping.items(preserve_field_references=True) if _is_unfilled(value)]  # type: ignore[call-arg]
        raise UserError(f"{where}.{empty[0] if empty else '?'} is missing: set it.") from error


def _is_unfilled(value: Any) -> bool:
    try:
        return isinstance(value, config_dict.FieldReference) and value.get() is None
    except config_dict.RequiredValueError:
        return True


def _arms(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, else the hint itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as an instance of the type `hint`, or a UserError that names `where`."""
    arms = _arms(hint)
    if len(arms) > 1:
        return _convert_union(value, arms, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        return _convert_literal(value, arguments, where)
    if origin is tuple:
        return _convert_tuple(value, arguments, where)
    if origin in (dict, Mapping):
        return {key: _convert(item, arguments[1], f"{where}.{key}") for key, item in _items(value, where).items()}
    if dataclasses.is_dataclass(hint):
        return (
            value if isinstance(value, typing.cast(type, hint)) else to_dataclass(typing.cast(type, hint), value, where)
        )
    return _convert_scalar(value, hint, where)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is float and is_number:
        if math.isnan(value):
            raise UserError(f"{where} is not a number (NaN): set it to a number.")
        return float(value)
    if hint is int and is_number and isinstance(value, numbers.Integral):
        return int(value)
    if hint in (bool, str, types.NoneType) and type(value) is hint:
        return value
    raise UserError(f"{where} is {value!r} but must be {_describe(hint)}.")


def _convert_union(value: Any, arms: tuple[Any, ...], where: str) -> Any:
    if value is None and types.NoneType in arms:
        return None
    others = [arm for arm in arms if arm is not types.NoneType]
    # A group of fields can only mean an arm that has fields; with one arm left the error names the inner path.
    if isinstance(value, Mapping | config_dict.ConfigDict):
        others = [
            arm for arm in others if dataclasses.is_dataclass(arm) or typing.get_origin(arm) in (dict, Mapping)
        ] or others
    if len(others) == 1:
        return _convert(value, others[0], where)
    for arm in others:
        try:
            return _convert(value, arm, where)
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
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        hints: Sequence[Any] = [arguments[0]] * len(value)
    else:
        hints = () if arguments == ((),) else arguments
    if len(value) != len(hints):
        raise UserError(f"{where} has {len(value)} values but needs {len(hints)}.")
    return tuple(_convert(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, hints, strict=True)))


def _check_range(value: Any, metadata: Mapping[str, Any], where: str) -> None:
    if value is None:
        return
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            _check_range(item, metadata, f"{where}[{i}]")
        return
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        raise UserError(f"{where} is {value!r}: choose one of {', '.join(map(repr, choices))}.")
    low, high = metadata.get("min"), metadata.get("max")
    if not isinstance(value, numbers.Real):  # a bound says nothing about the other arms of a union
        return
    if low is not None and (value < low or (metadata.get("exclusive_min") and value == low)):
        raise UserError(
            f"{where} is {value!r} but must be {'above' if metadata.get('exclusive_min') else 'at least'} {low}."
        )
    if high is not None and (value > high or (metadata.get("exclusive_max") and value == high)):
        raise UserError(
            f"{where} is {value!r} but must be {'below' if metadata.get('exclusive_max') else 'at most'} {high}."
        )


def _describe(hint: Any) -> str:
    """A type in words a user of the command line reads."""
    words = {float: "a number", int: "a whole number", bool: "True or False", str: "a text", types.NoneType: "None"}
    arms = _arms(hint)
    if len(arms) > 1:
        return " or ".join(map(_describe, arms))
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if origin is tuple:
        return "a list of values"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a group of fields"
    return words.get(hint, getattr(hint, "__name__", str(hint)))

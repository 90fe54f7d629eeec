"""What every command does: parse flags and config files, make one call, and turn bad input into one sentence."""

import errno
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_dict, config_flags

from chestx_jax.config import unknown_field
from chestx_jax.errors import UserError, nearest


def run(main: Callable[[list[str]], int | None], positional: bool = False) -> None:
    """`app.run(main)` for users: flag errors, `UserError` and a full disk print one sentence and exit with 2.

    `main` gets the arguments that the flags left over (the program's name first); only `positional` allows others.
    """

    def main_or_error(arguments: list[str]) -> int | None:
        try:
            if len(arguments) > 1 and not positional:
                raise UserError(f"There is nothing to do with {arguments[1]!r}: every option is written --name=value.")
            return main(arguments)
        except UserError as error:
            return _print_error(error)
        except Exception as error:
            if not _is_disk_full(error):
                raise
            file = getattr(error, "filename", None)
            name = f" while writing {file}" if file else ""
            return _print_error(UserError(f"The disk is full{name}: free some space and run the same command again."))

    app.run(main_or_error, flags_parser=_parse_flags)


def load_config(flag_value: str, overrides: Sequence[str] = ()) -> config_dict.ConfigDict:
    """Load `path.py` or `path.py:preset` (its `get_config(preset)`) and apply overrides such as `init.z_weight=1e-5`.

    The rules are those of `--config=path.py:preset --config.init.z_weight=1e-5`. The result is locked: no new fields.

    Raises: UserError for a missing file, an unknown field (with the nearest right one), a value of the wrong type.
    """
    path = pathlib.Path(flag_value.partition(":")[0])
    if not path.is_file():
        siblings = {sibling.stem: sibling for sibling in path.parent.glob("*.py")}
        near = nearest(path.stem, siblings)
        hint = f"did you mean {siblings[near]}?" if near else "give the path of a .py file with a get_config function."
        raise UserError(f"There is no config file {path}: {hint}")
    # Without the overrides first, so that their names can be checked against the fields that exist.
    check_overrides(_load(flag_value, ()), [override.partition("=")[0] for override in overrides])
    return _load(flag_value, overrides)


def check_overrides(config: config_dict.ConfigDict, paths: Iterable[str], where: str = "config") -> None:
    """Raise a UserError for the first dotted path that names no field of `config`."""
    fields, paths = dict(_fields(config, where)), list(paths)
    for path in paths:
        *parents, _ = path.split(".")
        prefixes = (".".join([where, *parents[:depth]]) for depth in range(1, len(parents) + 1))
        for prefix in prefixes:
            whole = prefix.partition("[")[0]
            if whole.removeprefix(f"{where}.") in paths:
                raise UserError(f"{whole} is set as a whole and {where}.{path} within it: set one of the two.")
            if prefix in fields and not isinstance(fields[prefix], config_dict.ConfigDict):
                raise UserError(
                    f"{where}.{path} cannot be set, since {prefix} is {fields[prefix]!r} here: "
                    f"choose a preset in which it has fields, or set {prefix} as a whole."
                )
        if f"{where}.{path}" not in fields:
            raise UserError(unknown_field(f"{where}.{path}", list(fields)))


def check_config_flags(arguments: Sequence[str], name: str = "config") -> None:
    """Check `--config=FILE` and every `--config.a.b` of a command line, before ml_collections reports in tracebacks.

    Raises: UserError for a missing file or an unknown field, with the nearest right one.
    """
    files = [_value(arguments, i) for i, argument in enumerate(arguments) if _flag(argument) == name]
    prefixes = (f"{name}.", f"no{name}.")  # `--noconfig.a.b` sets a bool to False
    overrides = [_flag(a).partition(".")[2] for a in arguments if _flag(a).startswith(prefixes)]
    if files:
        check_overrides(load_config(files[-1]), overrides, name)


def _load(flag_value: str, overrides: Sequence[str]) -> config_dict.ConfigDict:
    """The config of `--config=flag_value --config.override …`, parsed apart from the process's own flags."""
    values = flags.FlagValues()
    arguments = ["", f"--config={flag_value}", *(f"--config.{override}" for override in overrides)]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        # ml_collections hands on a ValueError of get_config as the text of its traceback.
        in_file = len(lines) > 1 and "whilst parsing config file" in lines[0]
        raise UserError(f"{flag_value}: {lines[-1].partition(': ')[2]}" if in_file else lines[0]) from error
    return values["config"].value


def _fields(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every field of a config, groups of fields included, those in tuples too."""
    if isinstance(value, config_dict.ConfigDict):
        for name, field in value.items():
            yield f"{path}.{name}", field
            yield from _fields(field, f"{path}.{name}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _fields(item, f"{path}[{i}]")


def _is_disk_full(error: Exception) -> bool:
    """Whether a disk or a quota had no room; checkpoints are written by TensorStore, which says so in words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def _parse_flags(arguments: list[str]) -> list[str]:
    try:
        ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
        if "config" in flags.FLAGS:
            check_config_flags(ours)
        rest = flags.FLAGS(arguments)
        for name, value in flags.FLAGS.flag_values_dict().items():  # absl's bounds let NaN through
            if isinstance(value, float) and not math.isfinite(value) and "." not in name:
                raise UserError(f"--{name}={value} is no finite number.")
        return rest
    except flags.UnrecognizedFlagError as error:
        near = nearest(error.flagname.partition(".")[0], flags.FLAGS)
        hint = f"did you mean --{near}?" if near else "--help lists the flags."
        sys.exit(_print_error(UserError(f"There is no flag --{error.flagname}: {hint}")))
    except (UserError, flags.Error) as error:
        sys.exit(_print_error(error))


def _print_error(error: Exception) -> int:
    """Print the error on one line; the exit status."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _flag(argument: str) -> str:
    """The flag's name in `--name=value`, `--name` or `-name`; empty for anything else."""
    return argument.lstrip("-").partition("=")[0] if argument.startswith("-") else ""


def _value(arguments: Sequence[str], index: int) -> str:
    """The value of the flag at `index`, written `--name=value` or `--name value`."""
    _, equals, value = arguments[index].partition("=")
    return value if equals else "".join(arguments[index + 1 : index + 2])

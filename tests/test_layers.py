"""Imports only go down. The rules are read from the source, so that a wrong import fails before anything runs it."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers.paths import ROOT

PACKAGE = "chestx_jax"

# From the bottom up. Rooms of one layer are siblings and do not import each other; the ground may use itself.
GROUND = (
    "types", "labels", "errors", "config", "files", "sharding", "multihost", "buckets", "progress", "metrics", "cli",
)  # fmt: skip
LAYERS = (
    GROUND,
    ("lexicon", "tokens", "model", "endpoint"),
    ("findings",),
    ("data", "rollout", "rewards", "sources"),
    ("phantom", "update"),
    ("recipes",),
    ("programs",),
    ("checkpoint", "export", "eval", "planning"),
    ("inference", "mining"),
    ("training",),
    ("train", "evaluate", "convert", "generate", "plan", "prepare", "mine"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
COMMANDS = LAYERS[-1]

NEVER = ("torch", "tensorflow", "pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
FLAGS = ("absl.flags", "absl.app", "argparse", "getopt", "ml_collections.config_flags", f"{PACKAGE}.cli")
WEIGHTS = ("orbax", "safetensors")
DEVICE = ("jax", "flax", "optax", "orbax")
HOST_ROOMS = ("lexicon", "tokens", "findings", "sources", "mining")
IN_JIT = ("findings/tokens.py", "findings/token_words.py", "findings/jit_arrays.py")


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, inside functions too; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def violations(path: str, source: str) -> list[str]:
    """Every broken rule of one file of the package, as `path:line: what`; `path` is relative to the package."""
    parts = pathlib.PurePosixPath(path).with_suffix("").parts
    room = parts[0]
    if room == "__init__":
        return []
    if room not in LEVEL:
        return [f"{path}: {room} has no layer: give it one in tests/test_layers.py and in the README's map"]
    is_command = room in COMMANDS or parts[-1] == "__main__"  # a room's own command line is a command too
    reads_flags = is_command or room in ("config", "cli")
    writes_weights = room == "checkpoint" or parts[:2] == ("model", "hf")
    broken = []
    for line, name in imports(source):
        problems = []
        if name.startswith("."):
            problems.append("relative import")
        if is_in(name, NEVER):
            problems.append("never used in this package")
        if is_in(name, FLAGS) and not reads_flags:
            problems.append("only commands read flags")
        if is_in(name, ("ml_collections",)) and not reads_flags:
            problems.append("configs are frozen dataclasses below the commands")
        if is_in(name, WEIGHTS) and not (writes_weights or is_command):
            problems.append("only checkpoint and model/hf read or write weights")
        if is_in(name, DEVICE) and room in HOST_ROOMS and path not in IN_JIT:
            problems.append(f"{room} is numpy only")
        if is_in(name, (PACKAGE,)) and name != PACKAGE:
            problems += _layer_problems(room, is_command, name.split(".")[1])
        broken += [f"{PACKAGE}/{path}:{line}: {name}: {problem}" for problem in problems]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True):
            broken.append(f"{PACKAGE}/{path}:{node.value.lineno}: allow_pickle: no pickle anywhere")
    return broken


def _layer_problems(room: str, is_command: bool, other: str) -> list[str]:
    if other not in LEVEL:
        return [f"{other} has no layer"]
    if other == room or (is_command and other in GROUND) or (room in GROUND and other in GROUND):
        return []
    if room == "rewards" and other == "model":
        return ["rewards never import model: they read token ids"]
    if LEVEL[other] == LEVEL[room]:
        return [f"{other} is a sibling of {room}"]
    return [f"{other} lies above {room}"] if LEVEL[other] > LEVEL[room] else []


FILES = sorted(path.relative_to(ROOT / PACKAGE).as_posix() for path in (ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_the_layers(path):
    assert violations(path, (ROOT / PACKAGE / path).read_text()) == []


@pytest.mark.parametrize("path", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*.py")))
def test_config_files_only_describe_a_run(path):
    """A config file is data: of the package it uses the typed configs and what builds them, and it starts no device."""
    allowed = tuple(f"{PACKAGE}.{module}" for module in ("config", "recipes", "errors", "types"))
    for line, name in imports((ROOT / path).read_text()):
        assert not is_in(name, (*NEVER, *DEVICE)), f"{path}:{line}: {name}"
        is_typed_config = is_in(name, allowed) or name.endswith(("Config", "Spec"))
        assert not is_in(name, (PACKAGE,)) or is_typed_config, f"{path}:{line}: {name}"


@pytest.mark.parametrize("path", [path for path in FILES if path.removesuffix(".py") in COMMANDS])
def test_commands_are_thin(path):
    """Flags, typed config, one call: what is longer belongs into a room."""
    assert len((ROOT / PACKAGE / path).read_text().splitlines()) <= 100


@pytest.mark.parametrize("path", FILES)
def test_files_hold_one_idea(path):
    assert len((ROOT / PACKAGE / path).read_text().splitlines()) <= 440


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("rewards/process.py", "from chestx_jax.model import rope", "rewards never import model"),
        ("rewards/process.py", "def f():\n    import chestx_jax.model.rope", "rewards never import model"),
        ("rewards/process.py", "from chestx_jax import model", "rewards never import model"),
        ("tokens/rows.py", "from chestx_jax.model.config import ModelConfig", "sibling"),
        ("tokens/rows.py", "from chestx_jax.data.schema import Sample", "above"),
        ("model/rope.py", "from chestx_jax.update import losses", "above"),
        ("types.py", "from chestx_jax.model import rope", "above"),
        ("tokens/rows.py", "import jax.numpy as jnp", "numpy only"),
        ("lexicon/tables.py", "from flax import struct", "numpy only"),
        ("findings/rules/claims.py", "import jax", "numpy only"),
        ("lexicon/check.py", "from chestx_jax.findings import extract", "above"),
        ("training/sft.py", "from absl import flags", "only commands read flags"),
        ("training/sft.py", "import argparse", "only commands read flags"),
        ("training/sft.py", "from chestx_jax import cli", "only commands read flags"),
        ("model/config.py", "import ml_collections", "frozen dataclasses"),
        ("training/sft.py", "import orbax.checkpoint as ocp", "only checkpoint"),
        ("model/lora.py", "from safetensors.numpy import save_file", "only checkpoint"),
        ("eval/statistics/scores.py", "import torch", "never used"),
        ("eval/statistics/scores.py", "from torch.nn import functional", "never used"),
        ("train.py", "import tensorflow as tf", "never used"),
        ("data/reader.py", "import pickle", "never used"),
        ("data/reader.py", "import numpy as np\nnp.load('x', allow_pickle=True)", "no pickle"),
        ("data/reader.py", "from . import schema", "relative"),
        ("helpers/strings.py", "", "has no layer"),
    ],
)
def test_broken_rules_are_seen(path, source, rule):
    (broken,) = violations(path, source)
    assert rule in broken


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "rewards/process.py",
            "from chestx_jax.lexicon import tables\nfrom chestx_jax.findings import Findings\nimport jax",
        ),
        ("lexicon/__main__.py", "from absl import flags\nfrom chestx_jax import cli"),
        (
            "train.py",
            "from absl import flags\nfrom ml_collections import config_flags\nfrom chestx_jax.training import sft",
        ),
        ("model/hf/read.py", "import safetensors"),
        ("model/hf/write.py", "import safetensors"),
        ("checkpoint.py", "import orbax.checkpoint as ocp\nfrom chestx_jax.update.state import TrainState"),
        ("data/reader.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
        ("update/steps.py", "import jaxtyping\nfrom chestx_jax.update import losses"),
    ],
)
def test_kept_rules_are_left_alone(path, source):
    assert violations(path, source) == []


@pytest.mark.parametrize("room", ["lexicon", "findings"])
def test_reading_text_needs_numpy_alone(room):
    """Other trainers read and score text on the host without jax."""
    code = f"import sys, chestx_jax.{room}; print(*({{'jax', 'flax', 'torch'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_no_circle_of_imports():
    """Modules import each other in one direction only, imports inside functions counted."""
    modules = {f"{PACKAGE}.{path[:-3].replace('/', '.')}".removesuffix(".__init__"): path for path in FILES}
    uses = {
        name: {
            module
            for _, target in imports((ROOT / PACKAGE / path).read_text())
            for module in _module_of(target, modules)
        }
        - {name}
        for name, path in modules.items()
    }
    while leaves := {name for name, targets in uses.items() if not targets & uses.keys()}:
        uses = {name: targets for name, targets in uses.items() if name not in leaves}
    while roots := uses.keys() - set().union(*uses.values()):  # what stands above a circle is no part of one
        uses = {name: targets for name, targets in uses.items() if name not in roots}
    assert not uses, f"circles among {sorted(uses)}"


def _module_of(target: str, modules: dict[str, str]) -> set[str]:
    """The package's module that an imported dotted name (a module, or something in one) stands for."""
    return {name for name in (target, target.rpartition(".")[0]) if name in modules and name != PACKAGE} and {
        next(name for name in (target, target.rpartition(".")[0]) if name in modules)
    }


@pytest.mark.parametrize("folder", sorted({path.rpartition("/")[0] for path in FILES if "/" in path}))
def test_folders_stay_readable(folder):
    """A room of more than sixteen files gets rooms of its own."""
    assert len([path for path in FILES if path.rpartition("/")[0] == folder]) <= 16

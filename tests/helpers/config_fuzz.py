"""Mutated configurations: presets as nested dicts, command lines, and the JSON that runs keep."""

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from chestx_jax.cli import load_config
from chestx_jax.config import from_defaults, to_dataclass, to_dict
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.programs.batches import check_batches
from chestx_jax.recipes import JobConfig, saved_job, supervised_stages
from chestx_jax.update.optimizer import learning_rate
from configs import eval as evaluation
from configs import rl, sft
from tests.helpers.fuzz import ODD_VALUES, mutated_tree
from tests.helpers.paths import CONFIGS

UNCLEAR = "UNCLEAR"  # an error that is no single sentence
PRESETS = (sft.PAPER, sft.PHANTOM, rl.PAPER, rl.PHANTOM)
FILES = ("sft.py", "sft.py:phantom", "rl.py", "rl.py:phantom")
WORDS = ("x", "none", "3", "-1", "1e9", "(1,2)", "[", "{'a': 1}", "lora", "random", "0.5", "True", "", "…", "'", "a b")


class Input(NamedTuple):
    """What an entry point is given, and how its result becomes a typed configuration."""

    value: Any
    read: Callable[[Any], Any]


def _preset(rng: np.random.Generator) -> Input:
    tree = mutated_tree(rng, _lists(PRESETS[rng.integers(len(PRESETS))]))
    return Input(tree, lambda tree: to_dataclass(JobConfig, from_defaults(JobConfig, tree)))


def _evaluation(rng: np.random.Generator) -> Input:
    tree = mutated_tree(rng, _lists(to_dict(EvalConfig()) | evaluation.PHANTOM))
    return Input(tree, lambda tree: to_dataclass(EvalConfig, tree))


def _saved(rng: np.random.Generator) -> Input:
    tree = mutated_tree(rng, to_dict(to_dataclass(JobConfig, PRESETS[rng.integers(len(PRESETS))])))
    return Input(tree, lambda tree: saved_job(json.loads(json.dumps(tree)), "config.json"))


def _one_field(rng: np.random.Generator) -> Input:
    """One field of a whole configuration, which is otherwise legal."""
    tree = to_dict(to_dataclass(JobConfig, PRESETS[rng.integers(len(PRESETS))]))
    odd = [value for value in ODD_VALUES if isinstance(value, int | float)]
    group, odd = tree, [*odd, 3, 7, 16, 56, 1e-3, 0.1, 1.5, 10.0, "", None, [1, 2, 3], {}]
    while True:
        key = list(group)[rng.integers(len(group))]
        if not isinstance(group[key], dict) or not group[key] or rng.random() < 0.05:
            group[key] = odd[rng.integers(len(odd))]
            return Input(tree, lambda tree: to_dataclass(JobConfig, tree))
        group = group[key]


def _command_line(rng: np.random.Generator) -> Input:
    file = FILES[rng.integers(len(FILES))]
    paths = [*_paths(to_dict(to_dataclass(JobConfig, dict(zip(FILES, PRESETS, strict=True))[file])), "")]
    overrides = []
    for _ in range(rng.integers(1, 3)):
        path = paths[rng.integers(len(paths))]
        path = path[:-1] if rng.random() < 0.1 else path
        odd = repr(ODD_VALUES[rng.integers(len(ODD_VALUES))]) if rng.random() < 0.5 else WORDS[rng.integers(len(WORDS))]
        overrides.append(f"{path}={odd}")
    return Input((str(CONFIGS / file), overrides), lambda given: to_dataclass(JobConfig, load_config(*given)))


KINDS = {
    "preset": _preset,
    "one field": _one_field,
    "command line": _command_line,
    "saved by a run": _saved,
    "evaluation": _evaluation,
}


def attempt(made: Input) -> str:
    """What becomes of a configuration; one that is typed survives the round trip and runs on one device."""
    try:
        config = made.read(copy.deepcopy(made.value))
        assert to_dataclass(type(config), to_dict(config)) == config
        if isinstance(config, JobConfig):
            check_batches(config, {"data": 1, "fsdp": 1, "tensor": 1})
            for stage in supervised_stages(config):
                assert np.isfinite(learning_rate(stage.optimizer, stage.steps)(stage.steps))
    except UserError as error:
        return "refused" if str(error) and len(str(error).splitlines()) == 1 else f"{UNCLEAR} {error}"
    return "typed"


def _lists(tree: Any) -> Any:
    """The tree with lists for tuples, which mutations know."""
    if isinstance(tree, dict):
        return {key: _lists(value) for key, value in tree.items()}
    return [_lists(item) for item in tree] if isinstance(tree, tuple) else tree


def _paths(tree: Any, prefix: str):
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")

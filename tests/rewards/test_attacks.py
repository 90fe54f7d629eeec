"""`attacks.toml`, the cases and blind texts of the process reward, is whole and reads as it should."""

import tomllib
from pathlib import Path

from chestx_jax import lexicon
from chestx_jax.findings import reward_targets

ATTACKS = tomllib.loads(Path(__file__).with_name("attacks.toml").read_text(encoding="utf-8"))


def test_cases_and_attacks_are_whole():
    loaded = lexicon.load()
    names = {concept.name for concept in loaded.concepts}
    cases, attacks = ATTACKS["case"], ATTACKS["attack"]
    assert len(cases) == 5
    for case in [*cases, ATTACKS["normal"]]:
        assert case["concept"] in names
        assert len(case["report"]) == 1 + (case["task"] == "temporal")
        reward_targets(loaded, [case["report"]], [[]], [case["answer"]], [case["task"]], slots=32)
    for case in cases:
        assert case["error"] in case["one_error"]
        assert len(case["true"]) == 2
    assert len({attack["name"] for attack in attacks}) == len({attack["text"] for attack in attacks}) == 30
    for attack in attacks:
        assert "{" not in attack["text"].format(concept="edema")

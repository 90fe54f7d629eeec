"""Reasoning by rules: what is said, in which order."""

import numpy as np
import pytest

from chestx_jax.lexicon import load
from chestx_jax.mining.questions import FAMILIES, Pair, _temporal
from chestx_jax.mining.readback import problems
from chestx_jax.mining.reference import read_references
from chestx_jax.mining.rules import reason
from tests.helpers.mined_studies import made_up_studies, make_study

LEXICON = load()


def test_the_asked_finding_is_named_before_its_signs():
    reports = (
        "FINDINGS: Small left effusion with a meniscus.",
        "FINDINGS: Increased moderate left effusion, a meniscus.",
    )
    earlier, current = read_references(
        LEXICON, [make_study(f"{i}", text, patient="openi:1", order=i) for i, text in enumerate(reports)]
    )
    asked = _temporal(Pair(earlier, current, "Pleural Effusion", "worsening"), "", np.random.default_rng(0))
    steps = reason(LEXICON, asked, np.random.default_rng(0)).steps
    assert steps[1:3] == (
        "The reference image shows a small left pleural effusion.",
        "The new image shows a moderate left pleural effusion.",
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_reasoning_is_borne_out_and_varied(family):
    references = read_references(LEXICON, made_up_studies(60, follow_ups=24))
    questions = FAMILIES[family](LEXICON, references, 0, np.random.default_rng(0))[:40]
    chains = [reason(LEXICON, question, np.random.default_rng(i)).steps for i, question in enumerate(questions)]
    assert all(problems(LEXICON, question, steps) == [] for question, steps in zip(questions, chains, strict=True))
    assert len({steps[0] for steps in chains}) > 1
    assert 4 <= np.mean([len(steps) for steps in chains]) <= 9

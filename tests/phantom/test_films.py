"""Phantom films show their findings where radiology says they are, and are a function of their seeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.phantom.cases import FINDINGS, draw_findings
from chestx_jax.phantom.drawing.anatomy import deform, draw_anatomy
from chestx_jax.phantom.drawing.contact_sheet import contact_sheet
from chestx_jax.phantom.drawing.render import Job, draw, from_json, to_json
from chestx_jax.phantom.finding import Finding

SIDED = ("Atelectasis", "Consolidation", "Fracture", "Lung Lesion", "Lung Opacity", "Pleural Effusion", "Pneumonia")
seeds = st.integers(0, 10_000)


def job(findings, seed=0) -> Job:
    return Job("", (seed, 0), (seed, 1), tuple(findings))


def one(label, side="left", zone="", severity="moderate", amount=0.5, shape=3, kind="") -> Finding:
    return Finding(label, side, zone, severity, amount, shape, kind)


def change(finding, seed, size=112) -> np.ndarray:
    """What a finding adds to the same patient's film, in gray levels."""
    with_it, without = draw(job([finding], seed), size), draw(job([], seed), size)
    return with_it.astype(np.float32) - without


@settings(max_examples=15)
@given(seeds, st.sampled_from([56, 112, 224]))
def test_a_film_is_a_function_of_its_job(seed, size):
    findings = draw_findings([FINDINGS[seed % len(FINDINGS)]], np.random.default_rng(seed))
    film = draw(job(findings, seed), size)
    assert film.dtype == np.uint8
    assert film.shape == (size, size)
    np.testing.assert_array_equal(film, draw(from_json(to_json(job(findings, seed))), size))
    assert np.any(film != draw(job(findings, seed + 1), size))


@settings(max_examples=20)
@given(seeds)
def test_normal_films_look_like_chests(seed):
    film = draw(job([], seed), 112).astype(np.float32)
    lungs = np.r_[film[30:60, 25:42].ravel(), film[30:60, 76:90].ravel()].mean()
    heart, abdomen, corner = film[62:72, 56:66].mean(), film[98:110, 30:80].mean(), film[:8, :8].mean()
    assert corner < 40 < lungs < heart - 60
    assert lungs < abdomen - 60


@pytest.mark.parametrize("label", SIDED)
@settings(max_examples=8)
@given(seed=seeds, side=st.sampled_from(["left", "right"]), zone=st.sampled_from(["upper", "mid", "lower"]))
def test_a_finding_is_drawn_on_its_side(label, seed, side, zone):
    """The patient's left is the image's right."""
    by_column = np.abs(change(one(label, side, zone, shape=seed), seed)).sum(axis=0)
    right, left = by_column[:54].sum(), by_column[58:].sum()
    assert (left if side == "left" else right) > 4 * (right if side == "left" else left)


@pytest.mark.parametrize("label", FINDINGS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_label_is_seen_well_above_the_noise(label, level):
    """At every severity, over many patients, a finding changes at least 30 pixels by more than four times the grain."""
    for seed in range(12):
        rng = np.random.default_rng((seed, level))
        (finding,) = draw_findings([label], rng)
        amount = (0.05, 0.5, 0.95)[level]
        finding = Finding(**{**vars(finding), "amount": amount})
        assert np.sum(np.abs(change(finding, seed)) > 4 * 0.022 * 255) >= 30, (finding, seed)


@given(seeds, st.floats(0, 1))
def test_cardiothoracic_ratio(seed, amount):
    anatomy = draw_anatomy(np.random.default_rng(seed))
    large = deform(anatomy, (one("Cardiomegaly", "", amount=amount),))
    assert sum(anatomy.heart[:2]) / (2 * anatomy.wall) < 0.5
    assert sum(large.heart[:2]) / (2 * large.wall) > 0.6


@given(seeds, st.sampled_from(["left", "right", "both"]))
def test_atelectasis_raises_the_diaphragm_of_its_side(seed, side):
    anatomy = draw_anatomy(np.random.default_rng(seed))
    raised = deform(anatomy, (one("Atelectasis", side, "lower"),))
    for dome, before, name in zip(raised.dome, anatomy.dome, ("right", "left"), strict=True):
        assert (dome < before) == (side in (name, "both"))


@settings(max_examples=10)
@given(seeds, st.floats(0, 1))
def test_pneumothorax_is_dark_and_effusion_bright(seed, amount):
    # Lungs differ in width and height: the window holds the right one of every patient, and soft tissue beside it.
    lung = change(one("Pneumothorax", "right", amount=amount), seed)[20:55, 8:50]
    assert np.quantile(lung, 0.05) < -25
    assert (lung < -20).sum() > 150
    base = change(one("Pleural Effusion", "right", amount=amount), seed)[60:88, 14:34]
    assert base.mean() > 12


def test_worse_is_larger_or_denser():
    for label in ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax"):
        for seed in range(6):
            side, zone = ("both", "") if label == "Edema" else ("right", "mid")
            mild, severe = (
                np.abs(change(one(label, side, zone, amount=amount, shape=seed), seed)).sum() for amount in (0.1, 0.9)
            )
            assert severe > 1.25 * mild, (label, seed)


def test_an_unchanged_finding_is_drawn_alike_on_a_follow_up_film():
    finding = one("Pneumonia", "right", "mid", shape=11)
    pair = [draw(Job("", (5, 0), (5, film), (finding,)), 112).astype(np.float32) for film in (1, 2)]
    other = draw(Job("", (5, 0), (5, 2), (one("Pneumonia", "right", "mid", shape=12),)), 112)
    lung = np.s_[40:75, 15:45]
    # Position and exposure differ between the films, the pattern does not.
    alike, unlike = (np.corrcoef(pair[0][lung].ravel(), film[lung].ravel())[0, 1] for film in (pair[1], other))
    assert alike > unlike


def test_contact_sheet_has_a_row_for_each_label():
    sheet = contact_sheet(["No Finding", "Edema", "Follow-up"], columns=4, seed=0, size=112, zoom=1)
    assert sheet.size == (4 * 116, 3 * 130)
    rows = np.asarray(sheet)[15:]
    assert all(rows[top : top + 100].std() > 20 for top in (0, 130, 260))

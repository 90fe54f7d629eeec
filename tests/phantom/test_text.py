"""Phantom reports, reasoning and questions are true of the film, and a question's text gives no hint of the answer."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chestx_jax.data.questions import options
from chestx_jax.data.schema import Sample, infer_task, parse_drawn
from chestx_jax.labels import LABELS, TASKS
from chestx_jax.phantom.cases import (
    FINDINGS,
    PROGRESSIVE,
    draw_case,
    draw_findings,
    draw_follow_up,
    has_ambiguous_pair,
    is_ambiguous,
)
from chestx_jax.phantom.drawing.render import Job
from chestx_jax.phantom.finding import CHANGES, DEVICES, SEVERITIES
from chestx_jax.phantom.pretraining import option_checks, pair_extents, region_extents, text_only, told_changes
from chestx_jax.phantom.text import phrases
from chestx_jax.phantom.text.questions import Study, questions
from chestx_jax.phantom.text.reasoning import in_order
from chestx_jax.phantom.text.reports import write_reports

LABEL_OF = {label.lower(): label for label in LABELS}


def make_study(seed: int) -> Study:
    rng = np.random.default_rng((9, seed))
    if seed % 4:
        case = draw_case(rng, str(seed))
    else:
        case = draw_follow_up(rng, str(seed), PROGRESSIVE[seed // 4 % 5], CHANGES[seed // 20 % 3])
    films = 1 if case.earlier is None else 2
    return Study(case, tuple(f"{seed}-{i}.png" for i in range(films)), write_reports(case, rng))


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return [make_study(seed) for seed in range(2000)]


@pytest.fixture(scope="module")
def samples(studies):
    return questions(studies, 1200, "made", "phantom", np.random.default_rng(0))


def test_any_three_unambiguous_findings_are_placed():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3):
        for labels in itertools.combinations(FINDINGS, count):
            if not has_ambiguous_pair(labels):
                findings = draw_findings(list(labels), rng)
                assert tuple(finding.label for finding in findings) == labels


@given(st.integers(0, 100_000))
def test_cases_are_sound(seed):
    case = draw_case(np.random.default_rng(seed), "")
    labels = [finding.label for finding in case.findings]
    assert len(labels) == len(set(labels)) <= 3
    assert not has_ambiguous_pair(labels)
    for finding in case.findings:
        assert finding.severity in SEVERITIES
        assert 0 <= finding.amount <= 1
        assert (finding.kind in DEVICES) == (finding.label == "Support Devices")
        assert (finding.side == "both") <= (finding.label in ("Edema", "Pleural Effusion", "Atelectasis"))


@given(st.integers(0, 100_000), st.sampled_from(PROGRESSIVE), st.sampled_from(CHANGES))
def test_follow_ups_change_as_requested(seed, changed, change):
    case = draw_follow_up(np.random.default_rng(seed), "", changed, change)
    for before, after in zip(case.earlier, case.findings, strict=True):
        if before.label == changed:
            assert (
                np.sign(round(after.amount - before.amount, 2))
                == {"stable": 0, "worsening": 1, "improving": -1}[change]
            )
            assert change == "stable" or abs(after.amount - before.amount) > 0.15
        else:
            assert before == after
        assert (before.side, before.zone, before.shape) == (after.side, after.zone, after.shape)


def test_labels_are_about_equally_frequent():
    rng = np.random.default_rng(3)
    cases = [draw_case(rng, "") for _ in range(4000)]
    count = Counter(finding.label for case in cases for finding in case.findings)
    assert 0.09 < min(count.values()) / len(cases) < max(count.values()) / len(cases) < 0.15
    assert 0.17 < sum(not case.findings for case in cases) / len(cases) < 0.23


def denied(text: str) -> set[str]:
    """Labels that a text denies with "no a, b or c"."""
    lists = re.findall(r"\b[Nn]o ([a-z ,]+?)(?: is seen)?[.]", text)
    names = {name for part in lists for name in re.split(r", | or ", part)}
    return {LABEL_OF[name] for name in names if name in LABEL_OF} - {"No Finding"}


@settings(max_examples=200)
@example(3082)  # a normal film of which no part is mentioned by chance
@given(st.integers(0, 100_000))
def test_reports_are_true(seed):
    patient = make_study(seed)
    films = [film for film in (patient.case.earlier, patient.case.findings) if film is not None]
    for report, findings in zip(patient.reports, films, strict=True):
        labels = [finding.label for finding in findings]
        assert re.fullmatch(r"Findings: .+ Impression: .+", report)
        assert not any(is_ambiguous(label, labels) for label in denied(report))
        body, _, impression = report.partition("Impression:")
        for finding in findings:
            if finding.side in ("left", "right"):
                assert finding.side in body.lower()
            if finding.side == "both":
                assert re.search("both|bilateral", body.lower())
        lines = impression.strip().split(". ") if len(findings) > 1 else [impression]
        assert len(lines) >= len(findings)
        if not findings:
            assert re.search("No acute|Normal", impression)
        assert "{" not in report
        assert "  " not in report
        assert not re.search(r"\b(the|a) both\b|\ba bilateral\b", report.lower())


def test_every_family_is_there_and_recognised(samples):
    assert Counter(sample.task for sample in samples) == dict.fromkeys(TASKS, 1200)
    assert all(infer_task(sample.question) == sample.task for sample in samples)
    assert len({sample.id for sample in samples}) == len(samples)


def labels_of(sample) -> list[str]:
    return [parse_drawn(text).label for text in sample.drawn]


def in_report_order(sample) -> list[str]:
    return [finding.label for finding in in_order([parse_drawn(text) for text in sample.drawn])]


def test_gold_answers_are_the_only_true_ones(samples):
    for sample in samples:
        labels, offered = labels_of(sample), options(sample.question)
        if sample.task == "binary":
            label = LABEL_OF[re.search("show (.+)[?]", sample.question)[1]]
            assert offered[sample.answer] == ("Yes" if label in labels else "No")
            assert label in labels or not is_ambiguous(label, labels)
        elif sample.task == "single":
            true = [letter for letter, text in offered.items() if LABEL_OF[text] in (labels or ["No Finding"])]
            assert true == [sample.answer]
            assert not has_ambiguous_pair(LABEL_OF[text] for text in offered.values())
        elif sample.task == "multiple":
            sets = {letter: {LABEL_OF[name] for name in text.split(", ")} for letter, text in offered.items()}
            assert [letter for letter, names in sets.items() if names == set(labels)] == [sample.answer]
            assert len({len(names) for names in sets.values()}) == 1
            assert not has_ambiguous_pair(set().union(*sets.values()))
        elif sample.task == "anomaly":
            assert not offered
            assert sample.answer.split(", ") == (in_report_order(sample) or ["No Finding"])
        else:
            changed = parse_drawn(next(text for text in sample.drawn if not text.endswith("|")))
            assert offered[sample.answer] == changed.change
            assert changed.label.lower() in sample.question
            assert len(sample.images) == len(sample.reports) == 2


def test_reasoning_is_true_short_and_states_every_finding(samples):
    lengths = []
    for sample in samples:
        labels, text = labels_of(sample), " ".join(sample.steps)
        assert 3 <= len(sample.steps) <= 9
        assert not any(is_ambiguous(label, labels) for label in denied(text))
        lengths.append(len(text.split()))
        if sample.task in ("multiple", "anomaly"):
            assert all(label.lower() in text for label in labels if label != "Support Devices")
        if sample.task in ("single", "multiple", "temporal"):
            assert text.endswith(f"The answer is option ({sample.answer}).")
            assert re.findall(r"Option \(([A-D])\)", text)[-1] == sample.answer  # the options up to the right one
        for name in re.findall("([a-z ]+) absent[.]", text):
            assert LABEL_OF[re.sub("^ ", "", name)] not in labels
        for name in re.findall("([a-z ]+) present[.]", text):
            assert LABEL_OF[re.sub("^ ", "", name)] in (labels or ["No Finding"])
        assert all(step[0].isupper() and step.endswith(".") for step in sample.steps)
    assert 30 < np.mean(lengths) < 50
    assert max(lengths) < 80


def test_the_vocabulary_is_small(studies, samples):
    texts = [text for study in studies for text in study.reports] + [" ".join(sample.steps) for sample in samples]
    assert len({word for text in texts for word in re.findall("[a-zA-Z]+", text.lower())}) < 250


def best_by_text(train, test, features) -> float:
    """Accuracy of a naive-Bayes rule over features of an option, fitted to one half of the questions, on the other."""
    seen, right = Counter(), Counter()
    for sample in train:
        for letter in options(sample.question):
            for feature in features(sample, letter):
                seen[feature] += 1
                right[feature] += letter == sample.answer

    def score(sample, letter):
        rates = [(right[f] + 1) / (seen[f] + 3) for f in features(sample, letter)]
        return sum(np.log(rate / (1 - rate)) for rate in rates)

    guesses = [max(options(s.question), key=lambda letter: score(s, letter)) for s in test]
    return float(np.mean([guess == sample.answer for guess, sample in zip(guesses, test, strict=True)]))


FEATURES = {
    "letter": lambda s, x: [x],
    "option text": lambda s, x: [(s.question.partition("Options:")[0], options(s.question)[x])],
    "labels and their order": lambda s, x: (
        [("has", name, place) for place, name in enumerate(options(s.question)[x].split(", "))]
        + [("sorted", sorted(options(s.question)[x].split(", ")) == options(s.question)[x].split(", "))]
    ),
    "overlap with the other options": lambda s, x: [
        tuple(sorted(s.question.count(name) for name in options(s.question)[x].split(", ")))
    ],
    "company": lambda s, x: [
        (mine, other)
        for mine in options(s.question)[x].split(", ")
        for text in options(s.question).values()
        for other in text.split(", ")
    ],
}


@pytest.mark.parametrize("rule", FEATURES)
@pytest.mark.parametrize(
    ("task", "chance"), [("binary", 1 / 2), ("single", 1 / 4), ("multiple", 1 / 4), ("temporal", 1 / 3)]
)
def test_the_text_alone_gives_no_hint(samples, rule, task, chance):
    mine = [sample for sample in samples if sample.task == task]
    accuracy = best_by_text(mine[::2], mine[1::2], FEATURES[rule])
    # 600 questions: a standard error of at most 2 points; the seed is fixed.
    assert accuracy < chance + 0.06


def test_no_anomaly_guess_is_cheap(samples):
    golds = Counter(sample.answer for sample in samples if sample.task == "anomaly")
    assert golds.most_common(1)[0][1] <= 0.12 * golds.total()


def region_caption(study: Study) -> Sample:
    """A caption of the film's regions, with all findings in the first ones."""
    names = [label.lower().split()[-1] for label in study.labels if label != "No Finding"]
    caption = " ".join([*names, *["clear"] * (16 - len(names))])
    truth = tuple(f"{finding.label}|{finding.side}|" for finding in study.case.findings)
    return Sample("", "anomaly", "", caption, study.images[:1], (), study.reports[:1], "", truth)


def test_checks_go_through_every_option_and_are_right(studies):
    one_film = [study for study in studies if study.case.earlier is None][:300]
    for sample in option_checks([region_caption(study) for study in one_film], "checks", np.random.default_rng(1)):
        labels = labels_of(sample)
        offered = re.findall(r"^([A-H])\) (.+)$", sample.question, re.MULTILINE)
        verdicts = re.findall(r"Option \(([A-H])\) ([a-z ]+) (present|absent)[.]", sample.answer)
        assert [(letter, name) for letter, name, _ in verdicts] == offered
        assert all((LABEL_OF[name] in labels) == (verdict == "present") for _, name, verdict in verdicts)
        assert {LABEL_OF[name] for _, name in offered} >= set(labels)
        assert all(LABEL_OF[name] in labels or not is_ambiguous(LABEL_OF[name], labels) for _, name in offered)


def test_text_only_samples_have_the_caption_and_no_film(studies, samples):
    captions = {study.images[:1]: region_caption(study).answer for study in studies}
    one_film = [sample for sample in samples if len(sample.images) == 1]
    without_film = text_only(samples, captions)
    assert len(without_film) == len(one_film) > 0
    for sample, original in zip(without_film, one_film, strict=True):
        assert sample.images == ()
        assert sample.question == f"{captions[original.images]}\n{original.question}"
        assert (sample.steps, sample.answer) == (original.steps, original.answer)


def test_region_extents_stand_where_the_findings_do(studies):
    one_film = [study for study in studies if study.case.earlier is None][:300]
    captions = [region_caption(study) for study in one_film]
    jobs = {study.images[0]: Job(study.images[0], (), (), study.case.findings) for study in one_film}
    changed = {sample.images: sample.answer.split() for sample in region_extents(captions, jobs, "extents")}
    for study, caption in zip(one_film, captions, strict=True):
        extents = {
            phrases.region_word(f.label): phrases.extent(f) for f in study.case.findings if f.label in PROGRESSIVE
        }
        assert (study.images in changed) == bool(extents)
        for word, extent in zip(caption.answer.split(), changed.get(study.images, ()), strict=False):
            assert extent == extents.get(word, word)


def test_changes_told_in_words_follow_from_the_extents():
    extents = dict(zip(("small", "mild", "moderate", "large", "severe"), (0, 0, 1, 2, 2), strict=True))
    samples = told_changes("told", np.random.default_rng(0))
    assert len(samples) == 5 * 9 * 6
    for sample in samples:
        before, after = re.findall(r"image shows (?:an? )?(\w+) ", sample.question)
        step = extents[after] - extents[before]
        options = dict(re.findall(r"^([ABC])\) (\w+)$", sample.question, re.MULTILINE))
        assert options[sample.answer] == ("stable" if not step else "worsening" if step > 0 else "improving")
        assert " ".join(sample.steps[:2]) == sample.question.partition(" Options:")[0]
        assert sample.steps[2].startswith(f"From {before} to {after}, the ")
        assert sample.steps[-2].endswith(f"{options[sample.answer]}: right.")


def test_temporal_reasoning_goes_from_both_extents_to_the_option(studies, samples):
    by_films = {study.images: study.case for study in studies}
    pairs = pair_extents(studies, "pairs")
    stated = {sample.images: re.findall(r"(?:reference|new) (\w+)", sample.answer) for sample in pairs}
    for sample in (sample for sample in samples if sample.task == "temporal"):
        before, after = stated[sample.images]
        assert re.match(rf"The reference image shows (an? )?{before} ", sample.steps[0])
        assert re.match(rf"The new image shows (an? )?{after} ", sample.steps[1])
        assert sample.steps[2].endswith(f"is {by_films[sample.images].change}.")


@pytest.mark.parametrize(("labels", "text"), [(["Edema"], "edema"), (["Edema", "Fracture"], "edema or fracture")])
def test_listing(labels, text):
    assert phrases.listing(labels, "or") == text

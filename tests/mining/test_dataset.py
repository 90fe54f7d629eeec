"""The command from prepared studies to records: what it writes, refuses, and how it goes on."""

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.data.reader import find_problems, read_samples
from chestx_jax.errors import UserError
from chestx_jax.findings import read_reports
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import load
from chestx_jax.mining.dataset import MineConfig, _questions, _usable, mine
from chestx_jax.mining.films import shown_films
from chestx_jax.mining.label_report import label_report
from chestx_jax.mining.readback import problems
from chestx_jax.mining.reference import read_references
from chestx_jax.rewards import priors
from chestx_jax.sources.prepare import PrepareConfig, prepare, read_prepared
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import Box, Film, Labels, Study, study_to_json
from tests.helpers import raw_sets
from tests.helpers.chat_server import serve
from tests.helpers.mined_studies import made_up_studies, make_study, write_prepared
from tests.helpers.reasoning_writer import writer

LEXICON = load()
FEW = MineConfig(families=("binary", "single"), per_label=1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("studies"), made_up_studies(80, follow_ups=36), films=True)


@pytest.fixture(scope="module")
def mined(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "mined"
    return out, mine(MineConfig(per_label=2), prepared, out, sys.stderr)


def records(out, split="train"):
    return [json.loads(line) for line in (out / f"{split}.jsonl").read_text().splitlines()]


def test_the_records_are_what_every_command_reads(mined):
    out, card = mined
    for split in ("train", "validation", "test"):
        assert list(find_problems(out / f"{split}.jsonl")) == []
    samples = read_samples(out / "train.jsonl")
    assert {sample.task for sample in samples} == {"binary", "single", "multiple", "anomaly", "temporal"}
    for sample in samples:
        assert len(sample.images) == 2
        assert len(sample.reports) == (2 if sample.task == "temporal" else 1)
        assert len(sample.steps) >= 3
        assert sample.patient.startswith("openi:")
        assert sample.views == (("PA", "PA") if sample.task == "temporal" else ("PA", "lateral"))
    assert sum(sum(tasks.values()) for tasks in card["samples"].values()) == sum(
        len(records(out, split)) for split in ("train", "validation", "test")
    )


def test_plan_and_evidence_lie_beside_the_reasoning(mined):
    out, _ = mined
    for record in records(out):
        assert record["plan"]
        assert all(entry["status"] in ("present", "absent") for entry in record["evidence"])
        for entry in record["evidence"]:
            stated = entry["basis"] in ("stated", "implied")
            reports = [record.get(f"original_report{end}", "") for end in ("", "_1", "_2")]
            assert bool(entry["statement"]) == stated
            assert any(entry["statement"] in " ".join(report.split()) for report in reports)


def test_no_patient_is_in_two_splits(mined):
    out, _ = mined
    splits = defaultdict(set)
    for split in ("train", "validation", "test"):
        for record in records(out, split):
            splits[record["patient"]].add(split)
    assert max(map(len, splits.values())) == 1
    assert {split for of_patient in splits.values() for split in of_patient} == {"train", "validation", "test"}


def test_findings_priors_and_card_are_beside(mined, prepared):
    out, card = mined
    findings = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
    assert len(findings) == card["studies"] == 152
    assert {"study", "patient", "split", "findings", "labels"} == findings[0].keys()
    assert priors.load(out / "priors.json", load()).rows
    assert (out / "data_card.md").read_text().startswith("# Data card")
    assert card["blind"]["tasks"]["single"]["blind"] < 0.4
    assert card["views by answer"]


def test_the_same_command_gives_the_same_bytes(mined, prepared, tmp_path):
    out, _ = mined
    mine(MineConfig(per_label=2), prepared, tmp_path / "mined", sys.stderr)
    for name in ("findings.jsonl", "priors.json", "settings.json", "refused.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "mined" / name).read_bytes()
    first, again = ([{**r, "image_path": 0} for r in records(folder)] for folder in (out, tmp_path / "mined"))
    assert first == again


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"families": ("binary", "temporary")}, "temporal"),
        ({"miner": "gpt-4"}, "openai:MODEL@URL"),
        ({"per_label": 5}, "was made with per_label 2, not 5: choose another --out"),
        ({"seed": 1}, "was made with seed 0, not 1"),
        ({"verdicts": True}, "was made with verdicts False, not True"),
        ({"verdicts": True, "miner": "openai:tiny@http://localhost:1/v1"}, "verdicts is of the chains by rules"),
    ],
)
def test_other_settings_are_refused(mined, prepared, change, complaint):
    out, _ = mined
    with pytest.raises(UserError, match=complaint):
        mine(replace(MineConfig(per_label=2), **change), prepared, out, sys.stderr)


def test_folders_that_cannot_be_used(tmp_path, prepared):
    with pytest.raises(UserError, match=r"no studies.jsonl: run chestx_jax.prepare"):
        mine(FEW, tmp_path, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("mine")
    with pytest.raises(UserError, match="not empty and was not made by this command"):
        mine(FEW, prepared, tmp_path / "other")
    write_prepared(tmp_path / "one", [make_study("1", "FINDINGS: Edema.")])
    with pytest.raises(UserError, match="gives no question of the families binary"):
        mine(MineConfig(families=("binary",)), tmp_path / "one", tmp_path / "out")
    same = [make_study(str(i), "FINDINGS: Edema.", patient="openi:1", split=s) for i, s in enumerate(("train", "test"))]
    write_prepared(tmp_path / "shared", same)
    with pytest.raises(UserError, match=r"Patient openi:1 is in train split .* and in test split"):
        mine(FEW, tmp_path / "shared", tmp_path / "out")


@pytest.mark.parametrize("source", ["mimic_cxr", "ms_cxr_t", "chexpert_plus", "rexgradient", "padchest"])
def test_reports_of_closed_sets_stay_on_this_machine(source, tmp_path):
    write_prepared(tmp_path / "studies", made_up_studies(60, source=source))
    remote = replace(FEW, miner="openai:m@https://api.example.com/v1")
    with pytest.raises(UserError, match=rf"terms of {source} forbid .* --allow-remote"):
        mine(remote, tmp_path / "studies", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_films_are_chosen_by_view():
    def films(*views):
        return Study("nih", "p", "1", films=tuple(Film(f"{i}", f"{i}.png", view) for i, view in enumerate(views)))

    def shown(study, most=2):
        return [film.path for film in shown_films(study, most)]

    assert shown(films("lateral", "AP", "PA")) == ["2.png", "0.png"]
    assert shown(films("lateral", "AP", "PA"), 1) == ["2.png"]
    assert shown(films("AP", "other", "unknown")) == ["0.png"]
    assert shown(films("frontal", "frontal")) == ["0.png"]
    assert shown(films("lateral")) == []


def test_a_study_without_a_frontal_film_is_counted(tmp_path, prepared):
    lateral = make_study("lateral", "FINDINGS: Edema.", films=(Film("a", "films/lateral.png", "lateral"),))
    bare = make_study("bare", "FINDINGS: Edema.")
    folder = write_prepared(tmp_path / "studies", made_up_studies(30), films=True)
    with (folder / "studies.jsonl").open("a") as file:
        file.writelines(json.dumps(study_to_json(study)) + "\n" for study in (lateral, bare))
    card = mine(MineConfig(families=("anomaly",), per_label=1), folder, tmp_path / "out")
    assert {reason: entry["count"] for reason, entry in card["skipped"].items()} == {"no frontal film": 1, "no film": 1}


def test_labels_alone_give_questions_too(tmp_path):
    """NIH's films have no reports: questions and reasoning come from the labels."""
    raw_sets.write_nih(tmp_path / "raw")
    prepare(PrepareConfig("nih", size=28), tmp_path / "raw", tmp_path / "studies", 1, sys.stderr)
    text = (tmp_path / "studies/studies.jsonl").read_text().splitlines()
    studies = [json.loads(line) for line in text]
    copies = [
        {**study, "id": f"{study['id']}-{i}", "patient": f"nih:{i}{study['patient'][-2:]}", "split": ""}
        for study in studies
        for i in range(12)
    ]
    (tmp_path / "studies/studies.jsonl").write_text("".join(json.dumps(study) + "\n" for study in copies))
    card = mine(MineConfig(families=("binary", "anomaly")), tmp_path / "studies", tmp_path / "out")
    assert card["refused"] == {}
    labels = {row["study"]: row["labels"] for row in records(tmp_path / "out", "findings")}
    for record in records(tmp_path / "out"):
        assert record["report_from"] == "labels"
        assert record["original_report"].count(".") == sum(
            status["basis"] == "labels" for label, status in labels[record["study"]].items() if label != "No Finding"
        )
        assert len(record["reason_steps"]) >= 3
        assert all(entry["statement"] == "" for entry in record["evidence"])


def test_each_label_is_checked_as_often_present_as_absent(mined):
    """On training films alone, two labels at a time, each verdict being what is known of the film; but for a few that
    find no second one."""
    out, _ = mined
    rows = {row["study"]: row for row in records(out, "findings")}
    verdicts = defaultdict(Counter)
    for sample in read_samples(out / "checks.jsonl"):
        row = rows[sample.id.partition("-checks-")[0]]
        assert row["split"] == "train"
        assert (sample.patient, len(sample.images)) == (row["patient"], 2)
        listed = re.findall(r"^([A-Z])\) (.+)$", sample.question, re.MULTILINE)
        given = re.findall(r"Option \((.)\) (.+?) (present|absent)\.", sample.answer)
        assert [(letter, name) for letter, name, _ in given] == listed
        assert [letter for letter, _ in listed] == ["A", "B"]
        for _, name, value in given:
            label = next(label for label in row["labels"] if label.lower() == name)
            assert row["labels"][label]["value"] == value
            verdicts[label][value] += 1
    assert len(verdicts) > 6
    for label, counts in verdicts.items():
        assert counts["present"] == pytest.approx(counts["absent"], rel=0.1, abs=8), label


def test_every_training_film_has_a_word_for_each_label(mined):
    out, _ = mined
    rows = {row["study"]: row for row in records(out, "findings") if row["split"] == "train"}
    samples = {sample.id.removesuffix("-labels"): sample for sample in read_samples(out / "labels.jsonl")}
    assert samples.keys() == rows.keys()
    for name, sample in samples.items():
        assert len(sample.images) == 1
        assert sample.answer.split() == [rows[name]["labels"][label]["value"] for label in LABELS[:-1]]


def test_chains_with_verdicts_say_first_what_is_there(tmp_path):
    """Of what is asked, or of each option up to the right one; the rest of the chain stays as it is without."""
    folder = write_prepared(tmp_path / "studies", made_up_studies(60))
    for verdicts in (True, False):
        mine(MineConfig(verdicts=verdicts), folder, tmp_path / str(verdicts), io.StringIO())
    plain = {record["item_id"]: record for record in records(tmp_path / "False")}
    families = Counter()
    for record in records(tmp_path / "True"):
        opening, *rest = record["reason_steps"]
        verdict_steps = [step for step in rest if re.match(r"Asked: |Option \(", step)]
        assert [opening, *rest[len(verdict_steps) :]] == plain[record["item_id"]]["reason_steps"]
        words = [
            re.fullmatch(r"(?:Asked:|Option \(.\)) (.+) (present|absent)\.", step).groups() for step in verdict_steps
        ]
        values = [value for _, value in words]
        families[record["task"]] += 1
        if record["task"] == "binary":
            assert values == ["present" if record["answer"] == "A" else "absent"]
        elif record["task"] in ("single", "multiple"):
            assert values == ["absent"] * "ABCD".index(record["answer"]) + ["present"]
        else:
            assert not verdict_steps
    assert families.keys() >= {"binary", "single", "anomaly"}


def test_an_llms_records_and_a_killed_run(tmp_path):
    """A run that the server's failures cut short writes what it has, names what is missing, and the same command asks
    for that alone."""
    folder = write_prepared(tmp_path / "studies", made_up_studies(40))
    calls = {"allowed": 20}

    def limited(body, before):
        calls["allowed"] -= 1
        return right(body, before) if calls["allowed"] > 0 else 401

    references = read_references(load(), _usable(list(read_prepared(folder)), Problems()))
    questions = [question for _, question in _questions(FEW, load(), references)]
    right = writer(load(), questions, lambda *_: "")
    with serve(limited) as (url, log):
        config = replace(FEW, miner=f"openai:tiny@{url}", workers=2, prices=("1", "2"))
        with pytest.raises(UserError, match="refuses tiny"):
            mine(config, folder, tmp_path / "out")
        answered = sum(log.answered.values())
        calls["allowed"] = 10_000
        card = mine(config, folder, tmp_path / "out")
        assert sum(log.answered.values()) - answered < sum(log.answered.values())
        again = sum(log.answered.values())
        mine(config, folder, tmp_path / "out")
        assert sum(log.answered.values()) == again
    assert card["refused"] == {}
    samples = read_samples(tmp_path / "out/train.jsonl")
    by_id = {question.id: question for question in questions}
    assert all(problems(load(), by_id[sample.id], sample.steps) == [] for sample in samples)


def test_the_command(tmp_path, prepared):
    command = [sys.executable, "-m", "chestx_jax.mine", f"--studies={prepared}", f"--out={tmp_path / 'out'}"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [*command, "--families=binary", "--per-label=2"], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("# Data card")
    run = subprocess.run([*command, "--families=binery"], capture_output=True, text=True, env=environment)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "did you mean 'binary'" in run.stderr


SPOKEN = ("Effusion", "Edema", "Mass", "Pneumothorax", "Cardiomegaly", "Infiltration", "Consolidation", "Pneumonia")


@settings(max_examples=30, deadline=None)
@given(values=st.dictionaries(st.sampled_from(SPOKEN), st.sampled_from([0, 1]), min_size=1), side=st.booleans())
def test_labels_stand_in_place_of_a_missing_report(values, side):
    """Read as a report, they say what the label vector says, with the side of a box, and nothing else."""
    box = Box("f", "Effusion", 600.0 if side else 50.0, 10.0, 200.0, 200.0, (1024, 1024), "radiologist")
    study = Study("nih", "p", "1", films=(Film("f", "f.png", "PA"),), labels=(Labels("nih", values),), boxes=(box,))
    (reference,) = read_references(LEXICON, [study])
    (reading,) = read_reports(LEXICON, [label_report(LEXICON, reference)])
    said = {(LEXICON.concepts[f.concept].name, f.polarity, f.side) for f in reading.findings}
    known = {label for label, status in reference.statuses.items() if status.basis == "labels"} - {"No Finding"}
    wanted = {label: int(reference.statuses[label].value == "present") for label in known}
    effusion = (1 if side else 2) if wanted.get("Pleural Effusion") else 0
    assert said == {(name, p, effusion if name == "Pleural Effusion" else 0) for name, p in wanted.items()}

"""The results writer: one form of scores.json from training, evaluation and comparison; earlier forms are read."""

import json

import pytest

from chestx_jax.errors import UserError
from chestx_jax.eval.compare import compare_runs, prediction_files
from chestx_jax.eval.predictions.records import Prediction, to_record
from chestx_jax.eval.results import read_scores, training_curves, write_results
from chestx_jax.eval.statistics.comparison import compare_models
from chestx_jax.lexicon import load

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
GUESSERS = {"binary": {"letter": 0.6, "label": 0.5, "order": 0.5, "combined": 0.6, "n": 8}}


def predictions(answers):
    return [
        Prediction(
            f"s{n}", "binary", "phantom", YES_NO, "A", f"<think> Edema. </think><answer> {a} </answer>", ("Edema.",)
        )
        for n, a in enumerate(answers)
    ]


def test_one_form_holds_models_baselines_changes_and_run(tmp_path):
    models = {"blind": predictions("AAAAAABB"), "SFT": predictions("AAAAAAAB"), "GRPO": predictions("AAAAAAAA")}
    comparison = compare_models(models, load(), GUESSERS)
    document = write_results(tmp_path, comparison, title="Test", asked=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "scores.json"]
    assert read_scores(tmp_path) == json.loads(json.dumps(document))
    assert list(document["models"]) == ["blind", "SFT", "GRPO"]
    assert document["models"]["GRPO"]["tasks"]["closed"]["metrics"]["accuracy"]["mean"] == 1
    # The better of the guessers' 60 % and the blind model's 75 %.
    assert document["blind_baselines"] == {"guessers": GUESSERS, "accuracy": {"binary": 0.75, "closed": 0.75}}
    assert list(document["changes"]) == ["SFT minus blind", "GRPO minus SFT"]
    assert document["changes"]["GRPO minus SFT"]["all"]["accuracy"]["mean"] == pytest.approx(1 / 8)
    answered = {"blind": 8, "SFT": 8, "GRPO": 8}
    assert document["run"] == {"asked": 8, "answered": answered, "awaited": [], "complete": True, "config": {}}


def test_a_run_is_complete_when_nothing_is_missing_or_awaited(tmp_path):
    some = compare_models({"SFT": predictions("AAB")}, load(), {})
    assert write_results(tmp_path, some, asked=3)["run"]["complete"]
    assert not write_results(tmp_path, some, asked=4)["run"]["complete"]
    assert not write_results(tmp_path, some, asked=3, awaited=["GRPO"])["run"]["complete"]
    assert not write_results(tmp_path, compare_models({"SFT": []}, load(), {}), asked=3)["run"]["complete"]


def row(metric):
    return {"n": 1, "metrics": {metric: {"mean": 0.5}}}


@pytest.mark.parametrize(
    "document",
    [
        {  # of a job
            "models": {"SFT": {"tasks": {"all": row("drawn_factuality")}, "sources": {}}},
            "blind": {"binary": 0.7},
            "baselines": GUESSERS,
            "changes": {},
        },
        {  # of an evaluation
            "model": "SFT",
            "asked": 1,
            "answered": 1,
            "complete": True,
            "config": {},
            "tasks": {"all": row("drawn_factuality")},
            "sources": {},
            "labels": {},
            "calibration": None,
            "baselines": GUESSERS,
        },
        {
            "models": {"SFT": {"tasks": {"all": row("drawn_factuality")}, "sources": {}}},
            "differences": {},
            "baselines": GUESSERS,
        },
    ],
)
def test_earlier_forms_are_read(tmp_path, document):
    (tmp_path / "scores.json").write_text(json.dumps(document))
    earlier = read_scores(tmp_path)
    assert earlier["models"]["SFT"]["tasks"]["all"] == row("ground_truth_factuality")
    assert earlier["blind_baselines"]["guessers"] == GUESSERS
    assert earlier.keys() == {"models", "blind_baselines", "changes", "run"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_scores_that_cannot_be_read_are_none(tmp_path, text):
    assert read_scores(tmp_path) == {}
    (tmp_path / "scores.json").write_text(text)
    assert read_scores(tmp_path) == {}


def job(workdir, models=("SFT", "GRPO", "blind")):
    """A workdir with a test of each model and the metrics of two stages."""
    for name in models:
        path = workdir / "test" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(to_record(p)) + "\n" for p in predictions("AAB")))
    for time, stage in enumerate(("sft", "grpo")):
        (workdir / stage).mkdir()
        (workdir / stage / f"{stage}.jsonl").write_text(json.dumps({"step": 1, "time": time, "loss": 1.0}) + "\n")
        (workdir / stage / f"{stage}.samples.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    return str(workdir)


def test_a_job_s_page_is_made_again_from_its_folder(tmp_path):
    workdir = job(tmp_path / "run")
    (tmp_path / "run" / "scores.json").write_text(json.dumps({"models": {}, "baselines": GUESSERS}))
    log_lines = []
    document = compare_runs([workdir], tmp_path / "out", log_lines.append)
    assert list(document["models"]) == ["blind", "SFT", "GRPO"]
    assert document["blind_baselines"]["guessers"] == GUESSERS
    assert "above" in log_lines[0]
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.index("sft: loss") < html.index("grpo: loss")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "scores.json",
        "table.csv",
        "table.tex",
    }


def test_places_of_every_kind_are_compared_under_names_of_their_own(tmp_path):
    first, second = job(tmp_path / "a", ["SFT"]), job(tmp_path / "b", ["SFT"])
    evaluated = tmp_path / "c"
    evaluated.mkdir()
    (evaluated / "predictions.jsonl").write_text((tmp_path / "a" / "test" / "SFT.jsonl").read_text())
    files = prediction_files([first, second, str(evaluated), f"{first}/test/SFT.jsonl"])
    assert list(files) == ["a/SFT", "b/SFT", "c", "SFT"]
    assert list(prediction_files([first])) == ["SFT"]
    assert list(prediction_files([f"{first}/test/SFT.jsonl", f"{second}/test/SFT.jsonl"])) == [
        f"{first}/test/SFT.jsonl",
        f"{second}/test/SFT.jsonl",
    ]
    assert list(training_curves(first)) == ["sft", "grpo"]
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match=r"d/predictions\.jsonl does not exist"):
        prediction_files([str(tmp_path / "d")])

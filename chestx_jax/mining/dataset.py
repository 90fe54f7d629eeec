"""A prepared folder of studies becomes a folder of RadR records.

OUT/settings.json           what the records depend on
OUT/{train,validation,test}.jsonl   the records, each with its plan and evidence beside the reasoning
OUT/{labels,checks}.jsonl   training films with all their labels, or with two to go through: to learn to see from
OUT/findings.jsonl          the reference findings and the status of each label, a line a study
OUT/refused.jsonl           questions whose reasoning cannot be used, with the reason
OUT/priors.json             priors and prices of the training questions, for grpo.rewards.priors
OUT/data_card.json, .md     counts, balance, blind baselines, confounds
OUT/replies/                an endpoint's replies
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, get_args

import numpy as np

from chestx_jax import files
from chestx_jax.data.schema import Sample, record_from_sample
from chestx_jax.endpoint.client import parse_model
from chestx_jax.endpoint.structured import Usage, dollars
from chestx_jax.errors import UserError, choose
from chestx_jax.lexicon import Lexicon, load
from chestx_jax.mining import data_card, llm, prompts, readback, rules
from chestx_jax.mining.checks import checks, labels
from chestx_jax.mining.films import shown_films
from chestx_jax.mining.label_report import label_report
from chestx_jax.mining.llm import Mined
from chestx_jax.mining.questions import FAMILIES, Question
from chestx_jax.mining.reference import Reference, read_references
from chestx_jax.progress import progress, rates
from chestx_jax.rewards import priors
from chestx_jax.rewards.batch import finding_json
from chestx_jax.rewards.value import ValueConfig
from chestx_jax.sources.catalog import SOURCES
from chestx_jax.sources.prepare import read_prepared
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.splits import with_splits
from chestx_jax.sources.study import Split, Study

SPLITS = [split for split in get_args(Split) if split]
_BLOCK = 512  # reports read at once


@dataclass(frozen=True)
class MineConfig:
    """What is mined: questions of some `families`, at most `per_label` a label, family and split (0: all), with
    reasoning by a `miner`, `rules` or `openai:MODEL@URL`. With `verdicts` the rules' chains say first whether what is
    asked, or each option, is present or absent: a small model then decides on it in one word."""

    families: tuple[str, ...] = tuple(FAMILIES)
    miner: str = "rules"
    per_label: int = 0
    seed: int = 0
    verdicts: bool = False
    allow_remote: bool = False  # send reports of sets that forbid it to a service beyond this machine
    workers: int = 8  # calls to an endpoint at a time
    prices: tuple[str, ...] = ()  # dollars per million tokens read and written


@dataclass(frozen=True)
class _Item:
    """A question with its split and what was mined for it."""

    split: Split
    question: Question
    mined: Mined


def mine(config: MineConfig, folder: Path, out: Path, console: TextIO = sys.stderr) -> dict[str, Any]:
    """Makes the folder `out` from the prepared `folder`, or goes on with it; returns the data card.

    Raises UserError for an unknown family or miner, verdicts of an endpoint, a folder that is not prepared, a folder
    `out` of other settings, patients on two sides of a split, a remote endpoint for a set that forbids it, and
    questions that the endpoint did not answer (the same command goes on).
    """
    lexicon = load()
    log = lambda text: print(text, file=console)  # noqa: E731
    for family in config.families:
        choose(FAMILIES, family, "family of questions")
    if config.verdicts and config.miner != "rules":
        raise UserError("--verdicts is of the chains by rules: leave it out with an endpoint, or use --miner=rules.")
    problems = Problems(log)
    studies = _usable(list(read_prepared(folder)), problems)
    _check_endpoint(config, studies)
    _check_out(config, folder, out, lexicon)
    references = _read(lexicon, studies, console)
    questions = _questions(config, lexicon, references)
    if not questions:
        raise UserError(
            f"{folder} gives no question of the families {', '.join(config.families)}: a question needs studies for "
            "each of its answers, and a temporal one two studies of each patient."
        )
    items = _mined(config, lexicon, questions, out, console)
    unanswered = [item for item in items if item.mined.unanswered]
    card = _write(config, lexicon, folder, out, references, items, problems)
    if unanswered:
        raise UserError(
            f"{len(unanswered)} of {len(items)} questions got no reply ({unanswered[0].mined.unanswered}): run the "
            "same command again, which asks for these alone; the other records are written."
        )
    return card


def _usable(studies: list[Study], problems: Problems) -> list[Study]:
    """The studies with a split and something to ask about. Where some have films, those without are left out."""
    studies = with_splits(studies)
    any_films = any(study.films for study in studies)
    kept = []
    for study in studies:
        where = f"study {study.id} of {study.patient}"
        if any_films and not shown_films(study):
            problems.skip("no frontal film" if study.films else "no film", where)
        elif not study.labels and not {*study.sections} & {"findings", "impression", "last_paragraph"}:
            problems.skip("neither labels nor a report's findings", where)
        else:
            kept.append(study)
    return kept


def _check_endpoint(config: MineConfig, studies: Sequence[Study]) -> None:
    """Refuses to send reports to a service of third parties where a set's terms forbid it."""
    if config.miner == "rules":
        return
    endpoint = parse_model(config.miner, Path())
    closed = sorted({study.source for study in studies if not SOURCES[study.source].third_parties})
    if closed and not llm.is_local(endpoint.url) and not config.allow_remote:
        raise UserError(
            f"{endpoint.url} is beyond this machine, and the terms of {', '.join(closed)} forbid to send its reports "
            "to services of third parties: serve a model on this machine (http://localhost:…/v1), or "
            "give --allow-remote if the service is one that the terms allow."
        )


def _check_out(config: MineConfig, folder: Path, out: Path, lexicon: Lexicon) -> None:
    """Writes the settings into a new folder; refuses one that was made with others, or that holds anything else."""
    settings = {
        "studies": hashlib.sha256((folder / "studies.jsonl").read_bytes()).hexdigest()[:16],
        "families": list(config.families),
        "miner": config.miner,
        "per_label": config.per_label,
        "seed": config.seed,
        "verdicts": config.verdicts,
        "lexicon": lexicon.digest[:12],
        "prompts": prompts.VERSION,
    }
    path = out / "settings.json"
    if path.is_file():
        earlier = files.read_json_object(path, "choose another --out")
        for name, value in settings.items():
            if earlier.get(name) != value:
                raise UserError(f"{out} was made with {name} {earlier.get(name)}, not {value}: choose another --out.")
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and was not made by this command: choose another --out.")
    else:
        files.write_json(path, settings)


def _read(lexicon: Lexicon, studies: Sequence[Study], console: TextIO) -> list[Reference]:
    measure = rates(time.monotonic, 0)
    references: list[Reference] = []
    with progress("read", len(studies), (), console, unit="report") as show:
        for start in range(0, len(studies), _BLOCK):
            references += read_references(lexicon, studies[start : start + _BLOCK])
            show(len(references), measure(len(references), {}))
    return references


def _questions(config: MineConfig, lexicon: Lexicon, references: Sequence[Reference]) -> list[tuple[Split, Question]]:
    """The questions of each split and family; a study's split alone decides on which side its questions are."""
    questions: list[tuple[Split, Question]] = []
    for number, split in enumerate(SPLITS):
        of_split = [reference for reference in references if reference.study.split == split]
        for family in config.families:
            rng = np.random.default_rng((config.seed, number, list(FAMILIES).index(family)))
            made = FAMILIES[family](lexicon, of_split, config.per_label, rng)
            questions += [(split, question) for question in made]
    return questions


def _mined(
    config: MineConfig, lexicon: Lexicon, questions: Sequence[tuple[Split, Question]], out: Path, console: TextIO
) -> list[_Item]:
    """What was mined for each question, in their order."""
    asked = [question for _, question in questions]
    if config.miner == "rules":
        results = enumerate(by_rules(lexicon, question, config.seed, config.verdicts) for question in asked)
    else:
        endpoint = parse_model(config.miner, out / "replies", workers=config.workers)
        expected = llm.estimate(asked)
        print(f"about to ask {len(asked)} questions: {expected}{dollars(expected, config.prices)}", file=console)
        results = llm.mine_all(endpoint, lexicon, asked)  # type: ignore[assignment]
    mined: dict[int, Mined] = {}
    measure = rates(time.monotonic, 0)
    with progress("mine", len(asked), (), console, unit="question") as show:
        for number, result in results:
            mined[number] = result
            show(len(mined), measure(len(mined), {}))
    usage = Usage()
    for result in mined.values():
        usage = usage.sum(result.usage)
    if config.miner != "rules":
        print(f"spent: {usage._asdict()}{dollars(usage._asdict(), config.prices)}", file=console)
    return [_Item(split, question, mined[i]) for i, (split, question) in enumerate(questions)]


def by_rules(lexicon: Lexicon, question: Question, seed: int, verdicts: bool = False) -> Mined:
    """A question's reasoning by rules, read back; a step that fails is left out once."""
    digest = hashlib.sha256(question.id.encode()).digest()
    rng = np.random.default_rng((seed, int.from_bytes(digest[:8], "big")))
    reasoning = rules.reason(lexicon, question, rng, verdicts)
    problems = readback.problems(lexicon, question, reasoning.steps)
    if not problems:
        return Mined(reasoning)
    failed = {problem.step for problem in problems}
    steps = tuple(step for number, step in enumerate(reasoning.steps) if number not in failed)
    if readback.problems(lexicon, question, steps):
        return Mined(None, refused=(problems[0].reason, problems[0].detail))
    return Mined(reasoning._replace(steps=steps), repaired=problems[0].reason)


def _write(
    config: MineConfig,
    lexicon: Lexicon,
    folder: Path,
    out: Path,
    references: Sequence[Reference],
    items: Sequence[_Item],
    problems: Problems,
) -> dict[str, Any]:
    used = [item for item in items if item.mined.reasoning]
    samples = [_sample(lexicon, folder, out, item) for item in used]
    for split in SPLITS:
        of_split = [(item, sample) for item, sample in zip(used, samples, strict=True) if item.split == split]
        files.write_json_lines(
            out / f"{split}.jsonl", (_record(item, sample, config.miner) for item, sample in of_split)
        )
    training = [reference for reference in references if reference.study.split == "train"]
    practice = {"labels": labels(training), "checks": checks(training, np.random.default_rng(config.seed))}
    for name, of_films in practice.items():
        files.write_json_lines(out / f"{name}.jsonl", (_placed(folder, out, sample) for sample in of_films))
    files.write_json_lines(out / "findings.jsonl", _findings(lexicon, references))
    refused = [item for item in items if item.mined.refused[0]]
    files.write_json_lines(out / "refused.jsonl", map(_refusal, refused))
    train = [sample for item, sample in zip(used, samples, strict=True) if item.split == "train"]
    columns = ([s.question for s in train], [s.task for s in train], [s.reports for s in train])
    priors.save(out / "priors.json", priors.count_texts(ValueConfig(), lexicon, *columns), lexicon)
    card = data_card.card(
        references, [(item.split, item.question, item.mined) for item in items], samples, problems.to_json()
    )
    files.write_json(out / "data_card.json", card)
    files.write_text(out / "data_card.md", data_card.as_markdown(card))
    return card


def _sample(lexicon: Lexicon, folder: Path, out: Path, item: _Item) -> Sample:
    """The record's fields that the rest of the project reads; films by their paths from the folder of the records. In
    place of a report that there is not stand the set's labels, in sentences."""
    question, reasoning = item.question, item.mined.reasoning
    assert reasoning is not None
    two = len(question.references) > 1
    films = [film for r in question.references for film in shown_films(r.study, 1 if two else 2)]
    reports = tuple(r.report if r.report.strip() else label_report(lexicon, r) for r in question.references)
    return Sample(
        id=question.id,
        task=question.task,
        question=question.text,
        answer=question.answer,
        images=tuple(os.path.relpath(folder / film.path, out) for film in films),
        steps=reasoning.steps,
        reports=reports if all(report.strip() for report in reports) else (),
        source=question.reference.study.source,
        patient=question.reference.study.patient,
        views=tuple(film.view for film in films),
    )


def _placed(folder: Path, out: Path, sample: Sample) -> dict[str, Any]:
    """The record of a sample whose films are named from the prepared folder."""
    images = tuple(os.path.relpath(folder / image, out) for image in sample.images)
    return record_from_sample(replace(sample, images=images))


def _record(item: _Item, sample: Sample, miner: str) -> dict[str, Any]:
    reasoning, study = item.mined.reasoning, item.question.reference.study
    assert reasoning is not None
    return {
        **record_from_sample(sample),
        "plan": reasoning.plan,
        "evidence": reasoning.evidence,
        "study": study.id,
        "report_from": "report" if item.question.reference.report.strip() else "labels",
        "miner": miner,
    }


def _findings(lexicon: Lexicon, references: Sequence[Reference]) -> Iterator[dict[str, Any]]:
    for reference in references:
        statuses = {label: status._asdict() for label, status in reference.statuses.items()}
        yield {
            "study": reference.study.id,
            "patient": reference.study.patient,
            "split": reference.study.split,
            "findings": [finding_json(finding, lexicon) for finding in reference.findings],
            "labels": statuses,
        }


def _refusal(item: _Item) -> dict[str, Any]:
    reason, detail = item.mined.refused
    question = item.question
    return {"item_id": question.id, "task": question.task, "question": question.text, "answer": question.answer,
            "reason": reason, "detail": detail}  # fmt: skip

"""How far a file of questions can be answered without the film, and what else in it would flatter a score."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from chestx_jax.data.fields import bare_answer
from chestx_jax.data.questions import options
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.statistics.blind_baselines import cross_fitted_baselines

MIN_ITEMS = 20  # fewer say nothing of a cross-fitted guesser


def audit(items: Sequence[Prediction], groups: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """Image-free baselines per task family, and the shares of repeated films and of repeated ids; items of one group
    are held out together.

    Returns:
      `n`; `tasks`: {task: {n, chance, majority, letter, prior, order, combined, blind}}, accuracies of guessers that
      never see a film, fitted on four fifths of the file and scored on the rest (`blind` is the best of them); the same
      three baselines over all closed items; `repeated_films`: share of items whose film another item shows too;
      `repeated_ids`: items beyond the first of their id and question; `remarks` in words.
    """
    fitted = cross_fitted_baselines(items, groups=groups)
    tasks = {task: _row([item for item in items if item.task == task], row) for task, row in fitted.items()}
    films = Counter(image for item in items for image in set(item.images))
    repeated = sum(any(films[image] > 1 for image in item.images) for item in items)
    ids = Counter((item.sample_id, item.question) for item in items)
    return {
        "n": len(items),
        "tasks": tasks,
        **{kind: _over_closed(tasks, kind) for kind in ("chance", "prior", "order", "blind")},
        "repeated_films": repeated / len(items) if items else None,
        "repeated_ids": sum(count - 1 for count in ids.values()),
        "remarks": [remark for task, row in tasks.items() for remark in _remarks(task, row)],
    }


def record_remarks(records: Sequence[Any]) -> list[str]:
    """What a reader should know of a file before trusting its score: repeated ids, several models mixed."""
    records = [record for record in records if isinstance(record, Mapping)]
    ids = Counter(str(r["item_id"]) + str(r.get("question")) for r in records if r.get("item_id"))
    repeated = sum(count - 1 for count in ids.values())
    models = {str(r["model"]) for r in records if r.get("model")}
    echoed = sum(str(r.get("pred", "")).lstrip().startswith(("system\n", "user\n")) for r in records)
    answered = sum(bool(r.get("pred")) for r in records)
    remarks = []
    if repeated:
        remarks.append(f"{repeated} records repeat the item_id and question of an earlier one; each is counted")
    if len(models) > 1 or (0 < echoed < answered):
        why = (
            f"the field model names {len(models)}"
            if len(models) > 1
            else f"{echoed} of {answered} echo their chat, the rest do not"
        )
        remarks.append(f"records of several models seem to be mixed: {why}")
    return remarks


def _row(items: Sequence[Prediction], fitted: Mapping[str, float]) -> dict[str, Any]:
    closed = [item for item in items if options(item.question)]
    chance = sum(1 / len(options(item.question)) for item in closed) / len(closed) if closed else None
    majority = Counter(bare_answer(item.answer) for item in items).most_common(1)[0][1] / len(items)
    columns = {"letter": "letter", "label": "prior", "order": "order", "combined": "combined", "f1": "f1"}
    guessed = {columns[key]: value for key, value in fitted.items() if key in columns}
    best = max((value for key, value in guessed.items() if key != "f1"), default=None)
    return {"n": len(items), "chance": chance, "majority": majority, **guessed, "blind": best}


def _over_closed(tasks: Mapping[str, Mapping[str, Any]], kind: str) -> float | None:
    """Mean over the items of all closed tasks, None where there are none."""
    rows = [row for row in tasks.values() if row["chance"] is not None]
    n = sum(row["n"] for row in rows)
    return sum(row[kind] * row["n"] for row in rows) / n if n else None


def _remarks(task: str, row: Mapping[str, Any]) -> list[str]:
    if row["n"] < MIN_ITEMS:
        return [f"{task}: {row['n']} items are too few to say what can be guessed"]
    if row["chance"] is None or row["blind"] - row["chance"] < 0.1:
        return []
    return [f"{task}: {row['blind']:.1%} can be had without the film (chance {row['chance']:.1%})"]

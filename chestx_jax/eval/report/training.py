"""The training curves of a job's stages as small charts side by side: loss, reward terms, completion length, KL."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.eval.report.line_chart import line_chart

Curves = Mapping[str, Sequence[Mapping[str, Any]]]  # stage -> its metrics records, in order of steps

# (what is drawn, its unit, the name of each line -> its metric)
SUPERVISED_CHARTS = (("loss", "nats per target token", {"training": "loss", "validation": "validation_loss"}),)
POLICY_CHARTS = (
    ("reward terms", "mean", {term: f"reward/{term}/mean" for term in ("total", "accuracy", "process", "format")}),
    ("completion length", "tokens", {"mean": "length"}),
    ("KL to the reference", "nats per token", {"mean": "kl"}),
    ("loss", "policy loss with the KL penalty", {"training": "loss"}),
)


def training_charts(curves: Curves) -> str:
    """A row of charts per kind of stage, as HTML; empty where nothing is recorded."""
    supervised: list[str] = []
    policy: list[str] = []
    for stage, records in curves.items():
        is_policy = any("reward/total/mean" in record for record in records)
        charts = [_chart(stage, records, *chart) for chart in (POLICY_CHARTS if is_policy else SUPERVISED_CHARTS)]
        (policy if is_policy else supervised).extend(chart for chart in charts if chart)
    return "".join(f'<div class="charts">{"".join(charts)}</div>' for charts in (supervised, policy) if charts)


def progress_notes(curves: Curves) -> str:
    """How far each stage has come: `sft: step 1200; grpo: step 40`."""
    return "; ".join(f"{stage}: step {records[-1]['step']}" for stage, records in curves.items() if records)


def _chart(stage: str, records: Sequence[Mapping[str, Any]], title: str, unit: str, lines: Mapping[str, str]) -> str:
    """One chart of a stage; empty where none of its lines has a point."""
    series = {name: points for name, metric in lines.items() if (points := _points(records, metric))}
    return line_chart(f"{stage}: {title}", unit, series) if series else ""


def _points(records: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[float, float]]:
    values = [(record["step"], record[metric]) for record in records if record.get(metric) is not None]
    return [(float(step), float(value)) for step, value in values if math.isfinite(value)]

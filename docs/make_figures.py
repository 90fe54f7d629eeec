"""The figures of README and docs, from a finished phantom run.

    python -m chestx_jax.train --config=configs/rl.py:phantom --workdir=runs/phantom
    python docs/make_figures.py --run runs/phantom --out docs/figures [--only reasoning resume …]

`reward_ablation` takes the folder of `tests/benchmarks/ablation.py` as its run and is drawn when asked for by name.
`resume` trains two small jobs of its own, one of them killed again and again (a few minutes); `report_page` needs
chromium. `dataflow.svg` is drawn by hand. Everything shown is a drawn film: no patient data.
"""

import argparse
import base64
import html
import io
import itertools
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from chestx_jax import metrics
from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.predictions.accuracy import outcome
from chestx_jax.eval.predictions.records import Prediction, read_good_predictions
from chestx_jax.lexicon import load
from chestx_jax.phantom.drawing.contact_sheet import ROWS
from chestx_jax.phantom.drawing.contact_sheet import contact_sheet as draw_contact_sheet
from chestx_jax.rewards.explain import (
    CONTRADICTED,
    NOT_SCORED,
    PARTLY_SUPPORTED,
    SUPPORTED,
    UNSUPPORTED,
    Step,
    explain,
)
from chestx_jax.rewards.texts import Item

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300_000  # bytes of a figure

plt.rcParams.update({
    "font.size": 11, "axes.grid": True, "grid.alpha": 0.25, "axes.spines.top": False, "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F"]),
    "savefig.dpi": 110, "savefig.bbox": "tight", "legend.frameon": False,
})  # fmt: skip


def contact_sheet(run: Path, out: Path) -> None:
    """Two films of every label and follow-up pairs, in three blocks side by side."""
    del run
    rows = -(-len(ROWS) // 3)
    blocks = [draw_contact_sheet(ROWS[start : start + rows], columns=2) for start in range(0, len(ROWS), rows)]
    sheet = Image.new("L", (sum(block.width for block in blocks), blocks[0].height))
    for number, block in enumerate(blocks):
        sheet.paste(block, (number * block.width, 0))
    save(sheet, out / "contact_sheet.jpg")


def report_page(run: Path, out: Path) -> None:
    """The top of the run's page in a browser 1,400 pixels wide."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "page.png")
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser is None:
            raise SystemExit("report_page needs chromium: install it, or leave the figure out with --only")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=9000"]
        page = (run / "report.html").resolve().as_uri()
        command = [browser, *options, "--window-size=1400,1500", f"--screenshot={shot}", page]
        subprocess.run(command, check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
    save(picture.quantize(128, dither=Image.Dither.NONE), out / "report_page.png")


def training_curves(run: Path, out: Path) -> None:
    """Losses of the supervised stages; reward terms, length and KL of GRPO."""
    figure, ((loss, reward), (length, kl)) = plt.subplots(2, 2, figsize=(11, 7))
    for stage in ("base", "sft"):
        for name, style in (("loss", "-"), ("validation_loss", "o")):
            steps, values = curve(run / stage / f"{stage}.jsonl", name)
            if steps:
                loss.plot(steps, values, style, label=f"{stage}: {name.replace('_', ' ')}")
    loss.set(title="base stage and SFT", xlabel="step", ylabel="loss")
    loss.set_ylim(bottom=0)
    records = run / "grpo" / "grpo.jsonl"
    for term in ("total", "accuracy", "format", "process", "gain", "factuality", "completeness"):
        reward.plot(*curve(records, f"reward/{term}/mean"), label=term)
    reward.set(title="GRPO: reward and its terms", xlabel="step", ylabel="mean of the batch")
    length.plot(*curve(records, "length"))
    length.set(title="GRPO: length of a completion", xlabel="step", ylabel="tokens")
    kl.plot(*curve(records, "kl"))
    kl.set(title="GRPO: KL from the reference model", xlabel="step", ylabel="nats a token (k3)")
    reward.set_ylim(0, 1.5)
    loss.legend()
    reward.legend(ncols=3, loc="upper center")
    figure.tight_layout()
    save_plot(figure, out / "training_curves.png")


def reward_ablation(run: Path, out: Path) -> None:
    """Gain, claims and how many are right while the arms of `tests/benchmarks/ablation.py` train, mean of seeds."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    arms = sorted({path.name.partition("_")[2] for path in run.glob("seed*_*")})
    for arm in arms:
        logs = [list(metrics.read(path)) for path in sorted(run.glob(f"seed*_{arm}/grpo/grpo.jsonl"))]
        by_step: dict[int, list[tuple[float, float, float]]] = {}
        for record in itertools.chain.from_iterable(logs):
            if "reward/gain/mean" in record:
                claims, false = record["reward/findings/mean"], record["reward/false/mean"]
                by_step.setdefault(record["step"], []).append((record["reward/gain/mean"], claims, 1 - false / claims))
        points = {
            step: [statistics.mean(column) for column in zip(*rows, strict=True)] for step, rows in by_step.items()
        }
        for axis, values in zip(axes, zip(*points.values(), strict=True), strict=True):
            axis.plot(points.keys(), values, label=arm.replace("_s_", "'s ").replace("_", " "))
    for axis, title in zip(
        axes, ("gain", "distinct claims in a completion", "share of claims that are right"), strict=True
    ):
        axis.set(title=title, xlabel="GRPO step")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms))
    save_plot(figure, out / "reward_ablation.png")


def resume(run: Path, out: Path) -> None:
    """A small job left alone and the same job killed five times: the curves lie on top of each other."""
    del run
    with tempfile.TemporaryDirectory() as folder:
        (alone,) = processes(Path(folder, "alone"), [])
        parts = processes(Path(folder, "killed"), [("sft", 34), ("sft", 70), ("sft", 104), ("grpo", 14), ("grpo", 30)])
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    shown = (("sft", "loss", "loss"), ("grpo", "length", "mean completion length, tokens"))
    for axis, (stage, name, label) in zip(axes, shown, strict=True):
        expected = {record["step"]: record[name] for record in alone[stage] if name in record}
        axis.plot(expected.keys(), expected.values(), color="0.85", linewidth=10, label="left alone")
        logged = {i: [(r["step"], r[name]) for r in part[stage] if name in r] for i, part in enumerate(parts, 1)}
        curves = {number: points for number, points in logged.items() if points}
        for width, (number, points) in zip((5.5, 4.2, 2.9, 1.6), curves.items(), strict=False):
            axis.plot(*zip(*points, strict=True), linewidth=width, label=f"process {number}")  # it repeats some steps
        ends = [points[-1] for points in list(curves.values())[:-1]]
        axis.plot(*zip(*ends, strict=True), "kx", markersize=9, markeredgewidth=2, label="killed")
        largest = max(abs(value - expected[step]) for points in curves.values() for step, value in points)
        axis.set(title=f"{stage.upper()}: largest difference {largest:g}", xlabel="step", ylabel=label)
        axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    save_plot(figure, out / "resume.png")


def processes(workdir: Path, kills: Sequence[tuple[str, int]]) -> list[dict[str, list[dict]]]:
    """Runs the tests' small job in `workdir`, killed once each (stage, step) of `kills` is logged, until it ends.

    Returns what each process logged, by stage.
    """
    steps = ["--config.init.steps=120", "--config.init.cadence.save=20", "--config.init.cadence.validate=20"]
    steps += ["--config.grpo.steps=40", "--config.grpo.cadence.save=8"]
    command = [sys.executable, "-m", "chestx_jax.train", "--config=tests/helpers/tiny_job.py:train", *steps]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    records = {stage: workdir / stage / f"{stage}.jsonl" for stage in ("sft", "grpo")}
    logged = []
    for stage, step in (*kills, ("", 0)):
        started = time.time()
        with subprocess.Popen([*command, f"--workdir={workdir}"], cwd=ROOT, env=environment) as process:
            while stage and not any(record["step"] >= step for record in metrics.read(records[stage])):
                time.sleep(0.01)
            if stage:
                process.send_signal(signal.SIGKILL)
        logged.append({name: [r for r in metrics.read(path) if r["time"] > started] for name, path in records.items()})
    return logged


def reasoning(run: Path, out: Path) -> None:
    """A test film with the model's reasoning, every claim coloured by its verdict: the picture of the README."""
    predictions, _ = read_good_predictions(run / "test" / "GRPO.jsonl")
    lexicon = load()
    judged = ((p, explain(lexicon, judged_item(p))) for p in filter(fits, predictions))
    judged = list(itertools.islice(judged, 60))
    prediction, steps = max(judged, key=lambda pair: telling(pair[1]))
    film = io.BytesIO()
    path = run / "data" / prediction.images[0].rpartition("/data/")[2]  # where the run lies now
    Image.open(path).convert("L").save(film, "PNG", optimize=True)
    answer = outcome(prediction)
    question, *options = prediction.question.splitlines()
    lines = [("note", "question"), *(("text", line) for line in wrapped(question.replace("Options:", "").strip()))]
    lines += [("text", line) for line in wrapped(" · ".join(options))] if options else []
    lines += [("gap", ""), ("note", "reasoning"), *(("marked", line) for line in marked(prediction, steps))]
    lines += [("gap", ""), ("note", "answer")]
    mark = "✓ right" if answer.correct else "✗ wrong"
    lines += [("text", f"{', '.join(sorted(answer.given or ()))}  {mark}")]
    lines += [("gap", ""), ("note", "report, which the model does not see")]
    lines += [("report", line) for line in wrapped(" ".join(prediction.reports))]
    shown = {finding.verdict for step in steps for finding in step.findings}
    picture = card(
        base64.b64encode(film.getvalue()).decode(), lines, [verdict for verdict in CLASSES if verdict in shown]
    )
    (out / "reasoning.svg").write_text(picture, encoding="utf-8")


def judged_item(prediction: Prediction) -> Item:
    text = reasoning_text(prediction.pred)
    return Item(text, prediction.reports, prediction.question, prediction.task, prediction.answer)


def fits(prediction: Prediction) -> bool:
    """Whether the picture has room for it: one film, a right answer, short texts."""
    words, report = len(reasoning_text(prediction.pred).split()), " ".join(prediction.reports)
    return len(prediction.images) == 1 and words <= 60 and len(report) <= 330 and outcome(prediction).correct


def telling(steps: Sequence[Step]) -> tuple[bool, int]:
    """How well judged reasoning shows what verdicts are: one wrong claim among many right ones, nothing said twice."""
    findings = [finding for step in steps for finding in step.findings]
    wrong = [finding for finding in findings if finding.verdict in (CONTRADICTED, UNSUPPORTED)]
    right = {(finding.concept, finding.says) for finding in findings if finding.verdict == SUPPORTED}
    return len(wrong) == 1 and len({step.text for step in steps}) == len(steps), len(right)


Runs = list[tuple[str, str]]  # pieces of a line of text, each with its verdict ("" for none)


def marked(prediction: Prediction, steps: Sequence[Step]) -> Iterator[Runs]:
    """The reasoning in lines, as runs of one verdict each."""
    text = reasoning_text(prediction.pred)
    verdicts, start = [""] * len(text), 0
    for step in steps:
        start = text.index(step.text, start)
        for finding in step.findings:
            span = slice(start + finding.start, start + finding.end)  # offsets in bytes: the phantom writes ASCII
            verdicts[span] = [finding.verdict] * (finding.end - finding.start)
        start += len(step.text)
    for first, last in breaks(text):
        spans = itertools.groupby(range(first, last), key=verdicts.__getitem__)
        yield [("".join(text[i] for i in places), verdict) for verdict, places in spans]


def wrapped(text: str) -> list[str]:
    return [text[first:last] for first, last in breaks(text)]


def breaks(text: str, width: int = 48) -> Iterator[tuple[int, int]]:
    """Start and end of each line of a text broken between words."""
    first = last = 0
    for word in re.finditer(r"\S+", text):
        if word.end() - first > width and last > first:
            yield first, last
            first = word.start()
        last = word.end()
    yield first, last


STYLE = """
    .card { fill: #ffffff; stroke: #d0d7de }
    text { font: 17px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
    .note { font-size: 14px; fill: #656d76 }
    .report { font-size: 16px; fill: #656d76 }
    .right { fill: #1a7f37; font-weight: 600 }
    .partly { fill: #9a6700; font-weight: 600 }
    .wrong { fill: #cf222e; font-weight: 600; text-decoration: underline wavy }
    .unscored { fill: #656d76; font-style: italic }
    @media (prefers-color-scheme: dark) {
      .card { fill: #0d1117; stroke: #30363d }
      text { fill: #e6edf3 }
      .note, .report, .unscored { fill: #9da7b3 }
      .right { fill: #4ac26b }
      .partly { fill: #d4a72c }
      .wrong { fill: #ff7b72 }
    }
"""
CLASSES = {
    SUPPORTED: "right",
    PARTLY_SUPPORTED: "partly",
    CONTRADICTED: "wrong",
    UNSUPPORTED: "wrong",
    NOT_SCORED: "unscored",
}


def card(film: str, lines: Sequence[tuple[str, str | Runs]], verdicts: Sequence[str]) -> str:
    """An SVG card that carries its own colours for light and dark pages: the film (PNG, base64) beside the lines."""
    rows, y = [], 20
    for kind, content in lines:
        y += {"gap": 8, "note": 20, "report": 22}.get(kind, 24)
        runs = content if isinstance(content, list) else [(content, "")]
        style = f' class="{kind}"' if kind in ("note", "report") else ""
        rows.append(f'  <text x="244" y="{y}"{style}>{"".join(map(span, runs))}</text>' if content else "")
    keys = [f'  <text x="22" y="{258 + 24 * i}">{span((name, name))}</text>' for i, name in enumerate(verdicts)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {y + 24}" role="img" aria-label="A drawn film with'
        f' the reasoning of the trained model; each claim has the colour of its verdict">\n  <style>{STYLE}  </style>\n'
        f'  <rect class="card" x="1" y="1" width="758" height="{y + 22}" rx="10"/>\n'
        f'  <image x="22" y="24" width="200" height="200" href="data:image/png;base64,{film}"/>\n'
        + "\n".join([*keys, *filter(None, rows)])
        + "\n</svg>\n"
    )


def span(run: tuple[str, str]) -> str:
    text, verdict = run
    escaped = html.escape(text, quote=False)
    return f'<tspan class="{CLASSES[verdict]}">{escaped}</tspan>' if verdict else escaped


def curve(path: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric of a stage's records."""
    points = [(record["step"], record[name]) for record in metrics.read(path) if name in record]
    return [step for step, _ in points], [value for _, value in points]


def save_plot(figure: plt.Figure, path: Path) -> None:
    """As PNG without the library's version in it, so that equal curves give equal files."""
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def save(picture: Image.Image, path: Path) -> None:
    options = {"quality": 72} if path.suffix == ".jpg" else {}
    picture.save(path, optimize=True, **options)


OF_ONE_RUN = (contact_sheet, reasoning, training_curves, report_page, resume)
FIGURES = {function.__name__: function for function in (*OF_ONE_RUN, reward_ablation)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/phantom"), help="workdir of a finished phantom job")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=[function.__name__ for function in OF_ONE_RUN])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        FIGURES[name](options.run, options.out)
        print(f"{name} is drawn", flush=True)
    for path in options.out.iterdir():
        if path.stat().st_size > LIMIT:
            raise SystemExit(f"{path} has {path.stat().st_size} bytes, over {LIMIT}: make it smaller")


if __name__ == "__main__":
    main()

"""The report page: what it holds, and that it works in a real browser without a network."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.headlines import headlines
from chestx_jax.eval.report.html import report_page
from chestx_jax.eval.report.items import item_data
from chestx_jax.eval.statistics.comparison import compare_models
from chestx_jax.files import write_text
from chestx_jax.lexicon import load
from tests.helpers import browser as chromium

QUESTION = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
RUN = {"asked": 120, "answered": {"SFT": 120, "GRPO": 120}, "awaited": [], "complete": True, "config": {}}
CURVES = {
    "sft": [{"step": step, "loss": 2 / step} for step in range(1, 50)] + [{"step": 49, "validation_loss": 0.1}],
    "grpo": [{"step": step, "loss": 0.0, "reward/total/mean": step / 90, "kl": 0.01 * step} for step in range(1, 90)],
}
NASTY = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"></script>"


def answers(comparison, model):
    return [item.prediction for item in comparison.evaluations[model].items]


def prediction(number, text, film="", **fields):
    """Odd numbers are binary questions, even ones open."""
    odd = number % 2 == 1
    return Prediction(
        sample_id=f"item-{number:04d}",
        task="binary" if odd else "anomaly",
        source="phantom" if number % 3 else "other",
        question=QUESTION if odd else "Which findings are in this chest X-ray?",
        answer="A" if odd else "Edema",
        pred=text,
        reports=("Mild pulmonary edema. No pleural effusion.",),
        steps=("There is pulmonary edema.",),
        images=(film,) if film else (),
        **fields,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    first, second = [], []
    for number in range(120):
        film = folder / f"{number % 20}.png"
        if not film.exists():
            Image.fromarray(np.full((112, 112), number * 2, np.uint8)).save(film)
        first.append(prediction(number, "<think> There is a fracture. </think><answer> B </answer>", str(film)))
        answer = f"<answer> {'A' if number % 2 else 'Edema'} </answer>"
        says = f"<think> There is pulmonary edema. A pleural effusion is seen. {number} </think>{answer}"
        second.append(prediction(number, says, str(film), truncated=number == 5))
    second[7] = prediction(7, f"<think> {NASTY} There is pulmonary edema. </think><answer> A", str(folder / "7.png"))
    second[8] = prediction(8, "", str(folder / "missing.png"))
    return compare_models({"SFT": first, "GRPO": second}, load(), {"binary": {"letter": 0.5, "n": 60}})


def test_the_page_holds_everything_and_nothing_that_runs(models):
    html = report_page(models, "Phantom & friends", RUN, {NASTY: [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]})
    assert "Phantom &amp; friends" in html
    assert "<script>document" not in html
    assert "onerror=" not in html.replace("\\u003cimg src=x onerror=", "").replace("&lt;img src=x onerror=", "")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", html)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])
    assert len(data["items"]) == 120
    assert len(data["films"]) == 20  # each film once, the missing one left out
    assert data["items"][7]["models"]["GRPO"]["pred"].startswith(f"<think> {NASTY}")


def test_marks_stand_on_the_words_they_are_about(models):
    item = item_data(models)["items"][1]
    answer = item["models"]["GRPO"]
    marked = {answer["reasoning"][start:end]: verdict for start, end, verdict, _, _ in answer["marks"]}
    assert marked["pulmonary edema"] == "supported"
    assert marked["pleural effusion"] == "contradicted"
    sft_answer = item["models"]["SFT"]
    assert [verdict for _, _, verdict, _, _ in sft_answer["marks"]] == ["unsupported"]


def test_the_page_opens_with_the_figures_a_reader_wants(models):
    accuracy, factuality, *changes = headlines(models)
    assert (accuracy.title, accuracy.figure) == ("Accuracy over blind", "+50.0")
    right, blind = "GRPO answers 100.0 % of the closed questions right", "50.0 % can be had without seeing the film."
    assert accuracy.sentence == f"{right}; {blind}"
    assert factuality.title == "Factuality"
    assert [change.title for change in changes] == ["What GRPO changed: accuracy", "What GRPO changed: factuality"]
    assert all(change.sentence.startswith("GRPO is better than SFT on the same") for change in changes)
    html = report_page(models, "Test", RUN, CURVES)
    parts = ["+50.0", "sft: loss", "grpo: reward terms", 'id="scores"', 'id="by-label"', 'id="items"']
    assert sorted(parts, key=html.index) == parts


def test_a_model_alone_has_its_own_figures_and_nothing_it_changed(models):
    alone = compare_models({"m": answers(models, "SFT")}, load(), {})
    assert [headline.title for headline in headlines(alone)] == ["Accuracy", "Factuality"]
    assert "Changes" not in report_page(alone, "Test", RUN, {})


def test_a_running_job_says_what_is_still_to_come(models):
    run = RUN | {"answered": {"SFT": 119}, "awaited": ["GRPO"], "complete": False}
    html = report_page(compare_models({"SFT": answers(models, "SFT")}, load(), {}), "Test", run, CURVES)
    assert "SFT tested, GRPO still to come. Recorded so far: sft: step 49; grpo: step 89." in html
    assert "SFT on 120 samples; SFT has answered 119" in html
    assert "still to come" not in report_page(models, "Test", RUN, CURVES)
    nothing = report_page(compare_models({}, load(), {}), "Test", run | {"answered": {}}, CURVES)
    assert "nothing yet on 120 samples" in nothing
    assert "grpo: KL to the reference" in nothing


def test_the_file_is_whole_or_absent(models, tmp_path):
    write_text(tmp_path / "report.html", report_page(models, "Test", RUN, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")


needs_browser = pytest.mark.skipif(not chromium.available(), reason="chromium and chromium-driver are not installed")


@pytest.fixture(scope="module")
def opened(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_text(path, report_page(models, "Phantom test", RUN, CURVES))
    with chromium.browser() as page:
        page.open(path.as_uri())
        page.until("return document.documentElement.dataset.ready")
        yield page


SET = """const node = document.getElementById(arguments[0]);
if (node.type === 'checkbox') node.checked = arguments[1]; else node.value = arguments[1];
node.dispatchEvent(new Event('input', {bubbles: true}));"""


def choose(page, name, value, count):
    """Sets a control and waits for the count of items."""
    page.run(SET, name, value)
    page.until(f"return document.getElementById('count').textContent.startsWith('{count} of')")


@needs_browser
def test_filter_search_and_keys(opened):
    opened.until("return document.getElementById('count').textContent === '120 of 120 items'")
    assert opened.run("return document.querySelectorAll('#list button').length") == 50
    choose(opened, "task", "binary", 60)
    choose(opened, "task", "", 120)
    choose(opened, "search", "item-0003", 1)
    assert opened.run("return document.getElementById('item-title').textContent") == "item-0003"
    choose(opened, "search", "", 120)
    choose(opened, "outcome", "truncated", 1)
    choose(opened, "outcome", "unparsed", 1)
    choose(opened, "outcome", "", 120)
    choose(opened, "verdict", "contradicted", 118)
    choose(opened, "verdict", "", 120)
    opened.run("document.querySelector('#list button').click()")
    first = opened.run("return document.getElementById('item-title').textContent")
    opened.press("j")
    assert opened.run("return document.getElementById('item-title').textContent") != first
    opened.press("k")
    assert opened.run("return document.getElementById('item-title').textContent") == first
    opened.press("/")
    assert opened.run("return document.activeElement.id") == "search"
    opened.run("document.activeElement.blur()")


@needs_browser
def test_item_shows_film_marks_and_difference(opened):
    choose(opened, "search", "item-0003", 1)
    assert opened.run("return document.querySelector('#detail img').naturalWidth") == 112
    marks = opened.run("return [...document.querySelectorAll('#detail mark')].map((m) => m.className)")
    assert sorted(set(marks)) == ["contradicted", "supported", "unsupported"]
    assert opened.run("return document.querySelectorAll('#detail .answer').length") == 2
    assert opened.run("return document.querySelector('.gold').textContent").startswith("A) Yes  (gold, chosen by GRPO")
    opened.press("d")
    assert opened.until("return document.querySelectorAll('#difference ins, #difference del').length") > 3
    opened.press("d")
    choose(opened, "search", "", 120)


@needs_browser
def test_what_a_model_wrote_is_text(opened):
    choose(opened, "search", "item-0007", 1)
    assert NASTY in opened.run("return document.querySelector('#detail .reasoning').textContent")
    assert opened.run("return document.title") == "Phantom test"
    assert opened.run("return document.querySelectorAll('#detail script').length") == 0
    choose(opened, "search", "", 120)


@needs_browser
def test_named_controls_and_headings_for_screen_readers(opened):
    unnamed = opened.run(
        "return [...document.querySelectorAll('input, select')].filter((n) => !n.labels.length).length +"
        "[...document.querySelectorAll('button')].filter((n) => !n.textContent.trim()).length +"
        "[...document.querySelectorAll('img')].filter((n) => !n.alt).length"
    )
    assert unnamed == 0
    levels = opened.run("return [...document.querySelectorAll('h1, h2, h3')].map((n) => +n.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


# Elements that reach over the window's right edge, and boxes whose content is scrolled out of view.
OVERFLOWING = """const width = document.documentElement.clientWidth;
const scrolled = (node) => getComputedStyle(node).overflowX !== 'visible' && node.scrollWidth > node.clientWidth + 1;
return [...document.querySelectorAll('main *')]
  .filter((node) => !node.closest('svg, .hidden, select'))
  .filter((node) => node.getBoundingClientRect().right > width + 1 || scrolled(node))
  .map((node) => node.outerHTML.slice(0, 80));"""


@needs_browser
@pytest.mark.parametrize("width", [1400, 1000, 390])
def test_everything_fits_the_width(opened, width):
    opened.resize(width)
    opened.until("return document.documentElement.dataset.ready")
    opened.run("for (const fold of document.querySelectorAll('details')) fold.open = true;")
    assert opened.run(OVERFLOWING) == []
    assert opened.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    cells = "[...document.querySelectorAll('.report td.value')]"
    assert opened.run(f"return {cells}.length && {cells}.every((cell) => cell.offsetWidth > 0)")
    opened.resize(1400)
    opened.until("return document.documentElement.dataset.ready")


@needs_browser
def test_dark_mode(opened):
    background = "return getComputedStyle(document.body).backgroundColor"
    before = opened.run(background)
    opened.run("document.getElementById('theme').click()")
    assert opened.run(background) != before
    opened.run("document.getElementById('theme').click()")
    assert opened.run(background) == before


@needs_browser
def test_no_request_leaves_and_no_error_is_logged(opened):
    assert [url for url in opened.network() if not url.startswith(("file:", "data:", "chrome:"))] == []
    assert [entry for entry in opened.log() if entry["level"] in ("SEVERE", "WARNING")] == []


def test_an_item_weighs_little(tmp_path):
    """At most 10 kB with a film full of noise and the marked texts of two models: 2,500 items stay under 25 MB."""
    rng, predictions = np.random.default_rng(0), []
    says = "<think> There is pulmonary edema. A pleural effusion is seen on the left. The heart is large. </think>" * 3
    for number in range(100):
        film = tmp_path / f"{number}.png"
        Image.fromarray(rng.normal(120, 40, (112, 112)).clip(0, 255).astype(np.uint8)).save(film)
        predictions.append(prediction(number, f"{says}<answer> A </answer>", str(film)))
    sizes = []
    for count in (50, 100):
        path, some = tmp_path / f"{count}.html", predictions[:count]
        write_text(path, report_page(compare_models({"SFT": some, "GRPO": some}, load(), {}), "Many", RUN, {}))
        sizes.append(path.stat().st_size)
    assert (sizes[1] - sizes[0]) / 50 < 10_000

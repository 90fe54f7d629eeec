"""How soon a large report page opens: `python -m tests.benchmarks.page [ITEMS]`, by default 2,500 of two models.

Needs chromium and its driver. Prints the file's size, when the page was ready and its first contentful paint.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.eval.report.html import report_page
from chestx_jax.eval.statistics.comparison import compare_models
from chestx_jax.files import write_text
from chestx_jax.lexicon import load
from tests.eval.report.test_page import CURVES, RUN, prediction
from tests.helpers import browser as chromium

SAYS = "<think> There is pulmonary edema. A pleural effusion is seen on the left. The heart is large. </think>" * 3


def main(items: int) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder, predictions = Path(name), []
        for number in range(items):
            film = folder / f"{number}.png"
            Image.fromarray(rng.normal(120, 40, (112, 112)).clip(0, 255).astype(np.uint8)).save(film)
            predictions.append(prediction(number, f"{SAYS}<answer> A </answer>", str(film)))
        comparison = compare_models({"SFT": predictions, "GRPO": predictions}, load(), {})
        path = folder / "large.html"
        write_text(path, report_page(comparison, "Large", RUN, CURVES))
        with chromium.browser() as page:
            started = time.monotonic()
            page.open(path.as_uri())
            page.until("return document.documentElement.dataset.ready")
            ready = time.monotonic() - started
            paint = page.run("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
        print(
            f"{items} items: {path.stat().st_size / 1e6:.1f} MB, ready after {ready:.2f} s, first paint {paint:.0f} ms"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2500)

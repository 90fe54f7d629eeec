"""Line charts: round ticks, bounded size, lines inside their axes."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.eval.report.line_chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, downsampled, line_chart, ticks
from chestx_jax.eval.report.training import training_charts

finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(finite, finite)
def test_ticks_hold_the_range_in_few_equal_round_steps(one, other):
    low, high = sorted((one, other))
    marks = ticks(low, high, 4)
    assert 2 <= len(marks) <= 9
    step = marks[1] - marks[0]
    assert marks[0] <= low + 1e-6 * step
    assert marks[-1] >= high - 1e-6 * step
    assert all(b - a == pytest.approx(step) for a, b in pairwise(marks))
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


@given(st.lists(finite, min_size=1, max_size=700))
def test_long_lines_are_averaged_and_end_where_they_did(values):
    points = list(enumerate(values, 1))
    averaged = downsampled(points, 100)
    assert len(averaged) <= 100
    assert averaged[-1][0] == len(values)
    assert min(values) - 1e-6 <= min(y for _, y in averaged) <= max(y for _, y in averaged) <= max(values) + 1e-6


@given(st.lists(st.tuples(st.integers(1, 10_000), finite), min_size=1, max_size=50))
def test_lines_stay_inside_the_axes_and_are_said_in_words(points):
    svg = line_chart("sft: loss", "nats", {"training <b>": sorted(points)})
    assert "training &lt;b&gt; from" in svg
    for path in re.findall(r'class="line s0" d="M([^"H]+)"', svg):
        for x, y in (map(float, place.split()) for place in path.split("L")):
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


def test_a_stage_shows_what_it_recorded():
    supervised = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 2, "validation_loss": 1.5}]
    policy = [{"step": 1, "loss": 0.0, "reward/total/mean": 0.5, "length": 9.0, "kl": float("nan")}]
    html = training_charts({"sft": supervised, "grpo": policy, "other": [{"step": 1, "time": 3}]})
    titles = re.findall(r"<figcaption><b>(.*?)</b>", html)
    assert titles == ["sft: loss", "grpo: reward terms", "grpo: completion length", "grpo: loss"]
    assert training_charts({}) == ""

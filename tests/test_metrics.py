"""Metrics files hold every step once, at whatever moment a run was killed."""

import contextlib
import io
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from chestx_jax import metrics, progress
from chestx_jax.errors import UserError


def run(folder, first, last, *, restored_step=0, console=None, clock=lambda: 0.0):
    with metrics.writer(
        folder, "sft", 20, restored_step=restored_step, console=console or io.StringIO(), clock=clock
    ) as write:
        for step in range(first, last + 1):
            sample = metrics.SampleRow(
                ("film.png", np.zeros((2, 2), np.uint8)), "q", f"<think> {step} </think>", "A", {}
            )
            write(step, {"loss": 1 / step, "tokens": np.float32(8)}, [sample] if step % 2 == 0 else [])


def steps(path):
    return [record["step"] for record in metrics.read(path)]


@given(killed=st.integers(1, 10), restored=st.integers(0, 10), torn=st.binary(max_size=40), cut=st.integers(0, 400))
def test_resume_leaves_no_gap_and_no_duplicate(killed, restored, torn, cut):
    """A run writes up to `killed`, tears its last line, and is restored at or before the last whole line."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "sft.jsonl")
        run(folder, 1, killed)
        torn = torn.replace(b"\n", b"")
        path.write_bytes(path.read_bytes()[: max(1, len(path.read_bytes()) - cut)] + torn)
        with contextlib.suppress(UserError):  # the made-up tail may complete a line into nonsense; then it is refused
            restored = min(restored, max(steps(path), default=0))
            before = {record["step"]: record for record in metrics.read(path)}
            run(folder, restored + 1, 12, restored_step=restored)
            assert steps(path) == list(range(1, 13))
            assert [record for record in metrics.read(path) if record["step"] <= restored] == [
                before[step] for step in range(1, restored + 1)
            ]


def test_samples_follow_the_same_rule(tmp_path):
    run(tmp_path, 1, 7)
    run(tmp_path, 4, 8, restored_step=3)
    samples = metrics.read(tmp_path / "sft.samples.jsonl")
    assert [sample["step"] for sample in samples] == [2, 4, 6, 8]
    assert samples[0] | {"images": ["film.png"], "text": "<think> 2 </think>", "answer": "A"} == samples[0]


def test_truncate_keeps_other_bytes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step":  1}\n{"step": 5, "x": "\xc3\xa9"}\n{"st')
    metrics.truncate_after(path, 5)
    assert path.read_bytes() == b'{"step":  1}\n{"step": 5, "x": "\xc3\xa9"}\n'
    metrics.truncate_after(path, 1)
    assert path.read_bytes() == b'{"step":  1}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("line", ["{", "3", "{}", '{"step": "a"}', "\x00"])
def test_damage_is_named(tmp_path, line):
    path = tmp_path / "sft.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match=r"sft\.jsonl line 2 is not a metrics record"):
        run(tmp_path, 3, 4, restored_step=2)


def test_lines_are_standard_json(tmp_path):
    with metrics.writer(tmp_path, "rl", 2, console=io.StringIO()) as write:
        write(1, {"loss": math.nan, "reward": math.inf, "entropy": np.float32(0.5)})
    line = json.loads((tmp_path / "rl.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (line["loss"], line["reward"], line["entropy"]) == (None, None, 0.5)


def test_any_text_can_be_written(tmp_path):
    texts = ["\ud800", "\u2028", "\n", "\x00", "é", '"']
    with metrics.writer(tmp_path, "rl", 2, console=io.StringIO()) as write:
        write(1, {}, [metrics.SampleRow((), "q", text, "A") for text in texts])
    assert [record["text"] for record in metrics.read(tmp_path / "rl.samples.jsonl")] == texts


def test_what_was_written_is_on_disk_before_the_run_ends(tmp_path):
    with metrics.writer(tmp_path, "rl", 2, console=io.StringIO()) as write:
        write(1, {"loss": 1.0})
        assert steps(tmp_path / "rl.jsonl") == [1]


def test_only_the_first_process_writes(tmp_path):
    with metrics.writer(tmp_path / "run", "rl", 2, primary=False) as write:
        write(1, {"loss": 1.0})
    assert not (tmp_path / "run").exists()


def test_rates_forget_compilation():
    times = iter([0.0, 60.0, 61.0, 61.0, 62.0])
    measure = progress.rates(lambda: next(times), restored_step=10)
    assert measure(11, {"tokens": 100.0})["steps_per_second"] == pytest.approx(1 / 60)
    assert measure(12, {"tokens": 100.0}) == pytest.approx({"steps_per_second": 1.0, "tokens_per_second": 100.0})
    assert measure(12, {}) == pytest.approx({"steps_per_second": 1.0})  # as of a validation between two steps
    assert measure(15, {"tokens": 100.0}) == pytest.approx({"steps_per_second": 2.0, "tokens_per_second": 200.0})


def test_utilisation_is_the_reached_share_of_the_peak(tmp_path):
    times = iter([0.0, *np.arange(60.0, 100.0, 0.5)])
    with metrics.writer(tmp_path, "rl", 9, console=io.StringIO(), clock=lambda: next(times), peak_flops=1e12) as write:
        for step in range(1, 5):
            write(step, {"flops": 1e11})
    last = metrics.read(tmp_path / "rl.jsonl")[-1]
    assert last["mfu"] == pytest.approx(last["flops_per_second"] / 1e12)
    assert 0.05 < last["mfu"] <= 0.2


def test_console_prints_every_few_seconds_and_the_last_step(tmp_path):
    times = iter(np.arange(0, 1000, 0.5))
    console = io.StringIO()
    run(tmp_path, 1, 20, console=console, clock=lambda: float(next(times)))
    lines = console.getvalue().splitlines()
    assert 3 < len(lines) < 12
    assert lines[0].startswith("sft 1/20 5% | loss 1 | ")
    assert lines[-1].startswith("sft 20/20 100% | loss 0.05 | ")
    assert "left" in lines[-2]
    assert "left" not in lines[-1]


def test_terminal_line_is_redrawn_in_place(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    console = Terminal()
    run(tmp_path, 1, 3, console=console)
    assert console.getvalue().count("\n") == 1
    assert console.getvalue().count("\r") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (150, "2m30s"), (11100, "3h05m"), (187200, "2d04h")],
)
def test_duration(seconds, text):
    assert progress.duration(seconds) == text


def test_wandb_is_imported_only_where_it_is_enabled(tmp_path):
    code = (
        "import sys; from chestx_jax import metrics\n"
        f"with metrics.writer({str(tmp_path)!r}, 'sft', 1) as write: write(1, {{'loss': 1.0}})\n"
        "sys.exit(any(name in sys.modules for name in ('wandb', 'jax', 'torch', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wandb_offline_run_with_a_sample_table(tmp_path):
    code = (
        "import numpy as np; from chestx_jax import metrics\n"
        "row = metrics.SampleRow((np.zeros((8, 8), np.uint8),), 'q', 'sampled text', 'A', {'factuality': 0.5})\n"
        f"with metrics.writer({str(tmp_path)!r}, 'sft', 2, wandb_mode='offline', config={{'a': 1}}) as write:\n"
        "    write(1, {'loss': 1.0}, [row, metrics.SampleRow((), 'q', 'sampled text', 'A')]); write(2, {'loss': 0.5})\n"
    )
    process = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert re.search(rb"media/images/\w+\.png", record.read_bytes())
    staged = [path.read_bytes() for path in tmp_path.glob("wandb/artifacts/staging/*")]
    assert any(content.startswith(b"\x89PNG") for content in staged)
    assert any(b"sampled text" in content and b"image-file" in content for content in staged)

"""The planner against published and measured times, and what it rests on.

    python -m tests.benchmarks.planning share                what the compiler's cost model gives a large product
    python -m tests.benchmarks.planning published [NUMBER [REMAT]]  published TPU training runs, predicted
    python -m tests.benchmarks.planning table FILE...        a Markdown table of plans that `plan --json` wrote
    python -m tests.benchmarks.planning lengths FILE         the lengths of the 7B recipe's data, for plan --lengths
    python -m tests.benchmarks.planning check                the 7B programs that the tests leave out compile
    python -m tests.benchmarks.planning card [h200:1 [xla]]  the 2B programs of tests.benchmarks.accelerator, predicted
    python -m tests.benchmarks.planning measured             the phantom's programs, predicted and timed on this machine

Needs libtpu and no TPU (`card`: jax's CUDA plugin and no card); the last needs neither.
"""

import functools
import json
import pathlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from chestx_jax.cli import load_config
from chestx_jax.config import to_dataclass
from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig
from chestx_jax.planning import report
from chestx_jax.planning.cost import topology
from chestx_jax.planning.cost.chips import GIB, Chip, cpu
from chestx_jax.planning.cost.roofline import cost
from chestx_jax.planning.planner import mesh_of, plan
from chestx_jax.programs.job import programs
from chestx_jax.programs.program import Program
from chestx_jax.recipes import JobConfig, SftConfig
from chestx_jax.sharding import MeshConfig
from chestx_jax.tokens.rows import RowsConfig
from tests.benchmarks import accelerator
from tests.benchmarks.timing import median_seconds

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = "https://github.com/AI-Hypercomputer/tpu-recipes/tree/main/training/trillium"


@dataclass(frozen=True)
class Published:
    """One run as its page reports it: FSDP over all chips, 8,192 tokens a row, what attention's linear layers read and
    write sent to the host's memory, MLPs and logits recomputed (`remat="offload"` here). `flops` is TFLOP/s a chip by
    their own count: MaxText's takes the full score matrices of attention."""

    model: str
    topology: str
    rows: int  # a chip
    seconds: float
    tokens: float  # a second and chip
    flops: float
    source: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int


LLAMA = {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "hidden": 14336, "vocabulary": 128256}
MISTRAL = {**LLAMA, "vocabulary": 32000}
TORCHAX = "https://github.com/AI-Hypercomputer/torchprime/tree/main/torchprime/experimental/torchax_models"
RUNS = (
    Published("Llama3.1-8B", "v6e:16x16", 4, 4.546, 7207.3, 417.4, f"{RECIPES}/Llama3.1-8B-MaxText/v6e-256", **LLAMA),
    Published("Llama3.1-8B", "v6e:4x4", 3, 3.393, 7243.4, 419.5, f"{RECIPES}/Llama3.1-8B-MaxText/v6e-16", **LLAMA),
    Published("Llama3.1-8B", "v6e:2x4", 3, 3.443, 7138.9, 413.4, f"{RECIPES}/Llama3.1-8B-MaxText/v6e-8", **LLAMA),
    Published("Mistral-7B", "v6e:2x4", 6, 6.320, 7776.8, 432.0, f"{RECIPES}/Mistral-7B-MaxText", **MISTRAL),
    Published("Llama3-8B (torchax)", "v6e:2x4", 1, 1.7, 4819.0, 0.30 * 918, TORCHAX, **LLAMA),
)


def job_of(run: Published, chips: int, remat: str) -> JobConfig:
    """The run in this project's programs: its decoder on text, with a minimal vision tower."""
    model = ModelConfig(
        vocab_size=run.vocabulary,
        layers=run.layers,
        width=run.width,
        heads=run.heads,
        kv_heads=run.kv_heads,
        hidden=run.hidden,
        vision=VisionConfig(layers=1, width=64, heads=2, hidden=64),
        compute=ComputeConfig(head_parts=16, remat=remat),
    )
    stage = SftConfig(rows=RowsConfig(8192, 1, 128), batch=run.rows * chips, steps=10, init="random")
    return JobConfig(init=stage, model=model, mesh=MeshConfig(1, -1, 1))


def published(only: str | None, remat: str = "offload") -> None:
    """One line a run: MFU as they count it. `remat` other than theirs recomputes or keeps more."""
    for number, run in enumerate(RUNS):
        if only is not None and int(only) != number:
            continue
        machine = topology.find(run.topology)
        program = plan(job_of(run, machine.count, remat), machine, ["sft/step"]).programs["sft/step"]
        if program.cost is None:
            print(f"{run.model} on {run.topology}: {program.compiled.refusal}", flush=True)
            continue
        measured = run.flops * 1e12 / machine.chip.peak_flops
        predicted = measured * run.seconds / program.cost.predicted
        print(
            f"{run.model} on {run.topology}: published {run.seconds:.2f} s, MFU {measured:.1%}; predicted "
            f"{program.cost.predicted:.2f} s, MFU {predicted:.1%} ({report.breakdown(program)}; "
            f"peak {program.peak / GIB:.1f} GiB, fits {program.fits}; compiled in "
            f"{program.compiled.seconds:.0f} s)  {run.source}",
            flush=True,
        )


def share() -> None:
    """Estimated cycles of an 8,192³ bf16 product, as a share of the peak at the clock in the table."""
    for name in ("v5e:2x2", "v5p:2x2x1", "v6e:2x2"):
        machine = topology.find(name)
        matrix = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16, sharding=SingleDeviceSharding(machine.devices[0]))
        text = jax.jit(lambda a, b: a @ b).lower(matrix, matrix).compile().as_text()
        cycles = max(int(estimate) for estimate in re.findall(r'"estimated_cycles":"?(\d+)', text))
        reached = 2 * 8192**3 / cycles * machine.chip.clock / machine.chip.peak_flops
        print(f"{machine.chip.name}: {cycles:,} cycles, {reached:.0%} of the peak", flush=True)


def table(files: list[str]) -> None:
    """Rows of plans, in the order given."""
    body = []
    for file in files:
        planned = json.loads(pathlib.Path(file).read_text())
        for name, program in planned["programs"].items():
            priced = program.get("cost")
            row = (
                planned["topology"],
                name,
                "yes" if program["fits"] else "no",
                f"{program['memory']['peak'] / GIB:.1f} of {program['memory']['limit'] / GIB:.1f}",
            )
            if priced is None:
                body.append((*row, program["refused"], "", "", ""))
                continue
            analytic, compiled = program.get("model_flops"), priced["flops"] * planned["chips"]
            ratio = f"{compiled / analytic['executed']:.3f}" if analytic else ""
            mfu = f"{program['mfu']:.0%}" if program.get("mfu") else ""
            body.append((*row, program["bound"], f"{priced['predicted']:.2f}", mfu, ratio))
    header = ("topology", "program", "fits", "peak GiB", "bound", "predicted s", "MFU", "FLOPs ÷ analytic")
    print(report.markdown(header, body))


def write_lengths(file: str, count: int = 1000) -> None:
    """The released model's completions (percentiles of its stored outputs), and prompts of 330 to 450 tokens with one
    film, 256 more for each further film: 30 % of studies have two and 8 % three."""
    places = (np.arange(count) + 0.5) / count * 100
    completions = np.interp(places, (0, 5, 50, 95, 99, 100), (64, 110, 182, 299, 347, 500)).round().astype(int)
    films = np.repeat([1, 2, 3], [count * 62 // 100, count * 30 // 100, count * 8 // 100])
    text = np.concatenate([np.linspace(330, 450, (films == n).sum()).round().astype(int) for n in (1, 2, 3)])
    rows = zip(text + 256 * (films - 1), films, completions, strict=True)
    lines = [json.dumps(dict(zip(("prompt", "films", "completion"), map(int, row), strict=True))) for row in rows]
    pathlib.Path(file).write_text("".join(f"{line}\n" for line in lines))


CHECKED = (  # config, overrides, topology, and programs that must fit: those of 7B that the tests do not compile
    ("sft.py", (), "v5e:4x8", ("sft/validate",)),
    (
        "rl.py",
        (),
        "v5p:2x4x4",
        ("grpo/prefill", "grpo/decode", "grpo/score", "grpo/logprobs", "grpo/reference", "test/decode"),
    ),
)


def check() -> None:
    """Compiles the other 7B programs and prints their tables; exits with 1 where one does not fit."""
    failed = []
    for config, overrides, name_of_slice, names in CHECKED:
        job = to_dataclass(JobConfig, load_config(str(ROOT / "configs" / config), overrides))
        planned = plan(job, topology.find(name_of_slice), names, log=lambda line: print(line, flush=True))
        print(report.text(planned), flush=True)
        failed += [f"{name} on {name_of_slice}" for name, program in planned.programs.items() if not program.fits]
    if failed:
        sys.exit(f"no longer fit: {', '.join(failed)}")


def card(name: str = "h200:1", attention: str = "auto") -> None:
    """The plan of what `tests.benchmarks.accelerator` times on a card."""
    job = accelerator.TWO_BILLION.job
    job = replace(job, model=replace(job.model, compute=replace(job.model.compute, attention=attention)))
    wanted = ("sft/step", "grpo/prefill", "grpo/decode", "grpo/reference", "grpo/gradients", "grpo/step")
    log = functools.partial(print, flush=True)
    print(report.text(plan(job, topology.find(name), wanted, log=log)))


TOUCHED = (0.5e6, 2e6, 8e6, 32e6, 128e6)  # bytes that the copies read and write


def this_machine(rows: int, width: int) -> tuple[float, ...]:
    """What this machine gives a program now, each from the difference that ten more steps in one program make: FLOP/s
    of products of `rows` tokens with a `width` × `width` matrix, bytes/s of copies of the sizes `TOUCHED`, and bytes/s
    of memory that is new to the program."""
    matrix = jnp.eye(width)
    product, _ = step_seconds(lambda x: x @ matrix, (rows, width))
    bandwidths, overhead = [], 0.0
    for size in TOUCHED:
        step, overhead = step_seconds(lambda x: jnp.concatenate([x[1:] * 0.5, x[:1]]), (int(size / 2 / 1024), 256))
        bandwidths.append(size / step)
    return (2 * rows * width**2 / product, *bandwidths, TOUCHED[-1] / 2 / max(overhead, 1e-6))


def chip_of(flops: float, *bandwidths: float) -> Chip:
    """The chip with those figures, which are printed."""
    *caches, allocation = bandwidths
    print(
        f"a product {flops / 1e9:.0f} GFLOP/s; GB/s by the bytes touched: "
        + ", ".join(f"{size / 1e6:g} MB {bandwidth / 1e9:.1f}" for size, bandwidth in zip(TOUCHED, caches, strict=True))
        + f"; new memory {allocation / 1e9:.1f} GB/s"
    )
    return cpu(flops, caches[-1], tuple(zip(TOUCHED[:-1], caches[:-1], strict=True)), allocation)


def step_seconds(step: Callable, shape: tuple[int, int]) -> tuple[float, float]:
    """Seconds of one of many steps in a program, and of the program's overhead beside its steps."""
    few, many = (chain_seconds(step, shape, times) for times in (2, 12))
    each = max((many - few) / 10, 1e-9)
    return each, few - 2 * each


def chain_seconds(step: Callable, shape: tuple[int, int], times: int) -> float:
    """Seconds of a program of `times` steps one after the other."""
    run = jax.jit(lambda x: functools.reduce(lambda x, _: step(x), range(times), x), donate_argnums=0)
    x = jnp.ones(shape) + 0

    def again():
        nonlocal x
        x = run(x)
        return x

    return median_seconds(again, 11)


def runner(program: Program) -> Callable[[], object]:
    """A run on zeros, every token allowed; the state is passed from run to run."""
    blank = lambda leaf: np.full(leaf.shape, leaf.dtype == bool, leaf.dtype)  # noqa: E731
    arguments = [jax.device_put(jax.tree.map(blank, shapes), at) for shapes, at in program.arguments.values()]
    run = program.jit()

    def once():
        results = run(*arguments)
        if "state" in program.donated:
            arguments[0] = results[0]
        return results

    return once


def measured(rounds: int = 5) -> None:
    """Predicted and measured seconds of the phantom's programs on one CPU device, with this machine's own figures:
    medians over rounds that take both in turn, since other load on the machine slows both."""
    job = to_dataclass(JobConfig, load_config(f"{ROOT / 'configs' / 'rl.py'}:phantom", ()))
    machine = topology.Topology("cpu:1", cpu(1e11, 1e10), (1,), tuple(jax.devices("cpu")[:1]))
    names = ("sft/step", "grpo/prefill", "grpo/decode", "grpo/reference", "grpo/gradients", "grpo/step")
    mesh = mesh_of(job.mesh, machine)
    planned, of_job = plan(job, machine, names), programs(job, mesh)
    runs, figures, times = {name: runner(of_job[name]) for name in names}, [], []
    for _ in range(rounds):
        figures.append(this_machine(2048, job.model.width))
        times.append([median_seconds(runs[name], 3, 1) for name in names])
    chip = chip_of(*np.median(figures, axis=0).tolist())
    placement = replace(machine.placement(mesh), chip=chip)
    for name, seconds in zip(names, np.median(times, axis=0).tolist(), strict=True):
        program = planned.programs[name]
        priced = cost(program.compiled.schedule, placement, program.compiled.memory.allocated)
        print(
            f"{name:15s} measured {seconds:.3f} s, predicted {priced.predicted:.3f} s, "
            f"ratio {seconds / priced.predicted:.2f}; {report.breakdown(replace(program, cost=priced))}",
            flush=True,
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["share"]:
            share()
        case ["published", number, remat]:
            published(number, remat)
        case ["published", *only]:
            published(only[0] if only else None)
        case ["table", *files]:
            table(files)
        case ["lengths", file]:
            write_lengths(file)
        case ["check"]:
            check()
        case ["card", *name]:
            card(*name)
        case ["measured"]:
            measured()
        case _:
            sys.exit(__doc__)

"""The planner against what others measured, and what it rests on.

    python tests/benchmarks/planning.py share                what the compiler's cost model gives a large product
    python tests/benchmarks/planning.py published [NUMBER]   published TPU training runs, predicted from their settings
    python tests/benchmarks/planning.py table FILE...        a Markdown table of plans that `plan --json` wrote
    python tests/benchmarks/planning.py check                the 7B programs of both recipes compile
    python tests/benchmarks/planning.py measured             the phantom's programs, predicted and timed on this machine

Needs libtpu and no TPU; the last needs neither.
"""

import json
import pathlib
import re
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from timing import median_seconds

from chestx_jax.config import load_config, to_dataclass
from chestx_jax.data.packing import RowsConfig
from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig
from chestx_jax.planning import report, topology
from chestx_jax.planning.chips import GIB, Chip, cpu
from chestx_jax.planning.planner import mesh_of, plan
from chestx_jax.programs import Program, programs
from chestx_jax.recipes import JobConfig, SftConfig
from chestx_jax.sharding import MeshConfig

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = "https://github.com/AI-Hypercomputer/tpu-recipes/tree/main/training/trillium"


@dataclass(frozen=True)
class Published:
    """One run as its page reports it: FSDP over all chips, 8,192 tokens a row, and what attention's maps read and write
    sent to the host's memory, MLPs and scores recomputed (`remat="offload"` here). `flops` is TFLOP/s a chip by their
    own count: MaxText's takes attention as whole squares."""

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


def job_of(run: Published, chips: int) -> JobConfig:
    """The run in this project's programs: its decoder on text, with a tower of next to nothing."""
    model = ModelConfig(
        vocab_size=run.vocabulary,
        layers=run.layers,
        width=run.width,
        heads=run.heads,
        kv_heads=run.kv_heads,
        hidden=run.hidden,
        vision=VisionConfig(layers=1, width=64, heads=2, hidden=64),
        compute=ComputeConfig(head_parts=16, remat="offload"),
    )
    stage = SftConfig(rows=RowsConfig(8192, 1, 128), batch=run.rows * chips, steps=10, init="random")
    return JobConfig(init=stage, model=model, mesh=MeshConfig(1, -1, 1))


def published(only: str | None) -> None:
    """One line a run: MFU as they count it."""
    for number, run in enumerate(RUNS):
        if only is not None and int(only) != number:
            continue
        machine = topology.find(run.topology)
        made = plan(job_of(run, machine.count), machine, ["sft/step"])
        program = made.programs["sft/step"]
        if program.cost is None:
            print(f"{run.model} on {run.topology}: {program.compiled.refused}", flush=True)
            continue
        measured = run.flops * 1e12 / machine.chip.flops
        predicted = measured * run.seconds / program.cost.predicted
        print(
            f"{run.model} on {run.topology}: published {run.seconds:.2f} s, MFU {measured:.1%}; predicted "
            f"{program.cost.predicted:.2f} s, MFU {predicted:.1%} ({report.spent(program)}; "
            f"peak {program.peak / GIB:.1f} GiB, fits {program.fits}; compiled in "
            f"{program.compiled.seconds:.0f} s)  {run.source}",
            flush=True,
        )


def share() -> None:
    """Estimated cycles of an 8,192³ bf16 product, as a share of the peak at the clock in the table."""
    for name in ("v5e:2x2", "v5p:2x2x1", "v6e:2x2"):
        machine = topology.find(name)
        one = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16, sharding=SingleDeviceSharding(machine.devices[0]))
        text = jax.jit(lambda a, b: a @ b).lower(one, one).compile().as_text()
        cycles = max(int(found) for found in re.findall(r'"estimated_cycles":"?(\d+)', text))
        reached = 2 * 8192**3 / cycles * machine.chip.clock / machine.chip.flops
        print(f"{machine.chip.name}: {cycles:,} cycles, {reached:.0%} of the peak", flush=True)


def table(files: list[str]) -> None:
    """Rows of plans, in the order given."""
    body = []
    for file in files:
        made = json.loads(pathlib.Path(file).read_text())
        for name, program in made["programs"].items():
            cost = program.get("cost")
            row = (
                made["topology"],
                name,
                "yes" if program["fits"] else "no",
                f"{program['memory']['peak'] / GIB:.1f} of {program['memory']['limit'] / GIB:.1f}",
            )
            if cost is None:
                body.append((*row, program["refused"], "", "", ""))
                continue
            agreed = cost["flops"] * made["chips"] / program["expected"]["executed"]
            body.append(
                (
                    *row, program["bound"], f"{cost['predicted']:.2f}", f"{program['mfu']:.0%}",
                    f"{agreed:.3f}",
                )
            )  # fmt: skip
    header = ("topology", "program", "fits", "peak GiB", "bound", "predicted s", "MFU", "FLOPs ÷ analytic")
    print(report.markdown(header, body))


CHECKED = (  # config, overrides, topology, programs, and whether they must fit
    ("sft.py", (), "v5e:4x8", ("sft/step",), True),
    ("rl.py", ("grpo.micro_batches=8",), "v5p:2x4x4", ("grpo/step", "grpo/reference", "grpo/rollout"), False),
)


def check() -> None:
    """Compiles the 7B programs and prints their tables; exits with 1 where one that must fit does not."""
    failed = []
    for config, overrides, place, names, must in CHECKED:
        job = to_dataclass(JobConfig, load_config(str(ROOT / "configs" / config), overrides))
        made = plan(job, topology.find(place), names, tell=lambda line: print(line, flush=True))
        print(report.text(made), flush=True)
        failed += [f"{name} on {place}" for name, program in made.programs.items() if must and not program.fits]
    if failed:
        sys.exit(f"no longer fit: {', '.join(failed)}")


def this_machine(rows: int, width: int) -> Chip:
    """What a model of that width can have of this machine: FLOP/s of a product of `rows` tokens with a map of `width` ×
    `width`, and bytes/s, read and write, of softmaxes in place over arrays of 0.5, 4, 16 and 64 MB."""
    tokens, square = jnp.ones((rows, width)), jnp.ones((width, width))
    product = jax.jit(lambda a, b: a @ b)
    flops = 2 * rows * width**2 / median_seconds(lambda: product(tokens, square), 51)
    soft, rates = jax.jit(lambda a: jax.nn.softmax(a, axis=-1), donate_argnums=0), []
    for megabytes in (0.5, 4, 16, 64):
        held = [jnp.ones((int(megabytes * 2**10), 256))]
        size = 2.0 * held[0].nbytes

        def again(held=held):
            held[0] = soft(held[0])
            return held[0]

        rates.append((size, size / median_seconds(again, 51)))
    print(
        f"a product {flops / 1e9:.0f} GFLOP/s; GB/s by the bytes touched: "
        + ", ".join(f"{size / 1e6:.0f} MB {rate / 1e9:.1f}" for size, rate in rates)
    )
    return cpu(flops, rates[-1][1], tuple(rates[:-1]))


def timed(program: Program) -> float:
    """Seconds of a run on zeros, every token allowed; the state goes from run to run."""
    blank = lambda leaf: np.full(leaf.shape, leaf.dtype == bool, leaf.dtype)  # noqa: E731
    at = jax.tree.broadcast(program.in_shardings, program.arguments)
    arguments = list(jax.tree.map(lambda leaf, place: jax.device_put(blank(leaf), place), program.arguments, at))
    run = program.jit()

    def once():
        found = run(*arguments)
        if program.donated:
            arguments[0] = found[0]
        return found

    return median_seconds(once, 5, 1)


def measured() -> None:
    """Predicted and measured seconds of the phantom's programs on one CPU device, with this machine's own figures."""
    job = to_dataclass(JobConfig, load_config(f"{ROOT / 'configs' / 'rl.py'}:phantom", ()))
    machine = topology.Topology("cpu:1", this_machine(2048, job.model.width), (1,), tuple(jax.devices("cpu")[:1]))
    names = ("sft/step", "grpo/rollout", "grpo/reference", "grpo/step")
    made, found = plan(job, machine, names), programs(job, mesh_of(job.mesh, machine))
    for name in names:
        cost, took = made.programs[name].cost, timed(found[name])
        runs = sum(item.trips for item in made.programs[name].compiled.work)
        print(
            f"{name:15s} measured {took:.3f} s, predicted {cost.predicted:.3f} s, ratio {took / cost.predicted:.2f}; "
            f"{report.spent(made.programs[name])}; {runs:,.0f} instructions",
            flush=True,
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["share"]:
            share()
        case ["published", *only]:
            published(only[0] if only else None)
        case ["table", *files]:
            table(files)
        case ["check"]:
            check()
        case ["measured"]:
            measured()
        case _:
            sys.exit(__doc__)

"""Machines to plan for, by name, with their devices: TPU slices and hosts of NVIDIA cards (none need be present), the
CPU, the local devices."""

import contextlib
import importlib.metadata
import math
import os
import re
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from chestx_jax.errors import UserError, nearest
from chestx_jax.planning.cost.cards import CARDS, CUDNN, target_config
from chestx_jax.planning.cost.chips import GPUS, TPUS, Chip, cpu
from chestx_jax.planning.cost.interconnect import Placement, row_major

SHAPES_2D = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
SHAPES = {"v5e": SHAPES_2D, "v6e": SHAPES_2D, "v5p": SHAPES_3D}
CARDS_OF_A_HOST = (1, 2, 4, 8)
GPU_WHEELS = ("jax-cuda13-plugin", "jax-cuda13-pjrt")
CPU_FLOPS, CPU_BANDWIDTH = 50e9, 10e9  # of a core of an ordinary server: an assumption, nothing is measured


@dataclass(frozen=True)
class Topology:
    """A machine to compile for. `shape` is the torus of its chips; empty where a switch joins those of each host."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    devices: tuple

    @property
    def count(self) -> int:
        return len(self.devices)

    def placement(self, mesh: jax.sharding.Mesh) -> Placement:
        """Where the devices of a mesh are, in the mesh's order."""
        devices = list(mesh.devices.flat)
        if not self.shape:
            hosts = tuple(device.process_index for device in devices)
            return Placement(self.chip, (), ((),) * len(devices), hosts)
        coordinates = (
            tuple(tuple(device.coords[: len(self.shape)]) for device in devices)
            if all(getattr(device, "coords", None) is not None for device in devices)
            else row_major(self.shape)
        )
        slices = tuple(getattr(device, "slice_index", None) or 0 for device in devices)
        return Placement(self.chip, self.shape, coordinates, slices)


def valid_names() -> str:
    """All names of topologies in one line."""
    lists = [f"{generation}:{{{','.join(shapes)}}}" for generation, shapes in SHAPES.items()]
    cards = f"{'|'.join(CARDS)}:N or HOSTSxN, where N is {', '.join(map(str, CARDS_OF_A_HOST))}"
    return (
        f"{'; '.join(lists)}; {cards}; cpu:N; local (Cloud names such as v5litepod-32, v5p-64 or v6e-16 are read too)"
    )


def find(name: str, cores: int | None = None) -> Topology:
    """The topology called `name`: `v5e:4x8`, `v5p-64` (Cloud's name, which counts cores), `h100:8`, `h100:2x8` (hosts ×
    cards), `cpu:8`, `local`.

    Raises UserError for an unknown name, listing the valid ones, and where the compiler for it is missing.
    """
    generation, _, shape = _shape_name(name).partition(":")
    if generation == "local":
        return _local()
    if generation == "cpu" and shape.isdigit() and int(shape) > 0:
        return _cpu(int(shape), cores or os.cpu_count() or 1)
    hosts = re.fullmatch(r"(?:([1-9]\d*)x)?(\d+)", shape) if generation in CARDS else None
    if hosts and int(hosts.group(2)) in CARDS_OF_A_HOST:
        return _gpu(name, generation, int(hosts.group(1) or 1), int(hosts.group(2)))
    if shape not in SHAPES.get(generation, ()):
        known = [f"{g}:{s}" for g, shapes in SHAPES.items() for s in shapes]
        known += [f"{card}:{count}" for card in CARDS for count in CARDS_OF_A_HOST]
        near = nearest(name, known, cutoff=0.7)
        hint = f" (did you mean {near}?)" if near else ""
        raise UserError(f"There is no topology {name!r}{hint}: choose one of {valid_names()}.")
    return _tpu(f"{generation}:{shape}", TPUS[generation], tuple(int(length) for length in shape.split("x")))


def _shape_name(name: str) -> str:
    """Cloud's accelerator names as generation and shape; other names unchanged."""
    match = re.fullmatch(r"(v5litepod|v5e|v5p|v6e)-(\d+)", name)
    if not match:
        return name
    generation = match.group(1).replace("v5litepod", "v5e")
    chips = int(match.group(2)) // (2 if generation == "v5p" else 1)
    shapes = [shape for shape in SHAPES[generation] if math.prod(int(n) for n in shape.split("x")) == chips]
    return f"{generation}:{shapes[0]}" if shapes else name


def _tpu(name: str, chip: Chip, shape: tuple[int, ...]) -> Topology:
    # libtpu asks the cloud which machine it is on unless these are set; any answer does, since it only compiles here.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # only the process that owns a chip must be alone
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    _leave_accelerators()
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name} cannot be compiled for here ({reason}): pip install 'chestx-jax[tpu]' brings the compiler"
        ) from error
    return Topology(name, chip, shape, tuple(description.devices))


def _gpu(name: str, card: str, hosts: int, count: int) -> Topology:
    """Hosts of `count` cards, compiled for with jax's CUDA plugin alone: no driver, CUDA or cuDNN."""
    _leave_accelerators()
    wheels = " ".join(f"{wheel}=={jax.__version__}" for wheel in GPU_WHEELS)
    if {_installed(wheel) for wheel in GPU_WHEELS} != {jax.__version__}:
        raise UserError(
            f"{name} cannot be compiled for here without jax's CUDA plugin of the version of jax: "
            f"pip install --no-deps {wheels}"
        )
    _assume_cudnn()
    described = topologies.get_topology_desc(
        platform="cuda", target_config=target_config(CARDS[card]), topology=f"1x{hosts}x{count}"
    )
    return Topology(name, CARDS[card].chip, (), tuple(described.devices))


def _installed(wheel: str) -> str | None:
    """The version of a package that is installed, None where it is not."""
    try:
        return importlib.metadata.version(wheel)
    except importlib.metadata.PackageNotFoundError:
        return None


def _assume_cudnn() -> None:
    """Lets attention be lowered to cuDNN's kernels where there is no cuDNN to ask for its version."""
    from jax._src.cudnn import fused_attention_stablehlo

    version = CUDNN[0] * 10_000 + CUDNN[1] * 100
    fused_attention_stablehlo.check_cudnn_version = lambda: version


def _leave_accelerators() -> None:
    """Keeps jax from looking for an accelerator and taking it, unless the environment says otherwise."""
    if not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")


def _cpu(count: int, cores: int) -> Topology:
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # devices that exist already stay as they are
            jax.config.update("jax_num_cpu_devices", count)
    if len(jax.devices("cpu")) < count:
        raise UserError(
            f"cpu:{count} needs {count} CPU devices and there are {len(jax.devices('cpu'))}: "
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    share = cores / count
    chip = cpu(CPU_FLOPS * share, CPU_BANDWIDTH * share)
    return Topology(f"cpu:{count}", chip, (count,), tuple(jax.devices("cpu")[:count]))


def _local() -> Topology:
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        return _cpu(len(devices), os.cpu_count() or 1)
    known = [chip for chip in (*GPUS, *TPUS.values()) if chip.name.split()[1].lower() in kind.lower()]
    lite = {"TPU v5 lite": "v5e", "TPU v6 lite": "v6e", "TPU v5": "v5p"}.get(kind)
    if not known and not lite:
        raise UserError(f"There are no figures for {kind}: add them to chestx_jax/planning/cost/chips.py")
    shape = (len(devices),) if lite else ()
    return Topology("local", TPUS[lite] if lite else known[0], shape, tuple(devices))

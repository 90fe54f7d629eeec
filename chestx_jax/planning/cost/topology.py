"""Machines to plan for, by name, with their devices: TPU slices (none need be present), the CPU, the local devices."""

import contextlib
import math
import os
import re
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from chestx_jax.errors import UserError, nearest
from chestx_jax.planning.cost.chips import GPUS, TPUS, Chip, cpu
from chestx_jax.planning.cost.interconnect import Placement, row_major

SHAPES_2D = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
SHAPES = {"v5e": SHAPES_2D, "v6e": SHAPES_2D, "v5p": SHAPES_3D}
CPU_FLOPS, CPU_BANDWIDTH = 50e9, 10e9  # of a core of an ordinary server: an assumption, nothing is measured


@dataclass(frozen=True)
class Topology:
    """A machine to compile for. `shape` is the torus of its chips."""

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
    return f"{'; '.join(lists)}; cpu:N; local (Cloud names such as v5litepod-32, v5p-64 or v6e-16 are read too)"


def find(name: str, cores: int | None = None) -> Topology:
    """The topology called `name`: `v5e:4x8`, `v5p-64` (Cloud's name, which counts cores), `cpu:8`, `local`.

    Raises UserError for an unknown name, listing the valid ones, and where libtpu is missing.
    """
    generation, _, shape = _shape_name(name).partition(":")
    if generation == "local":
        return _local()
    if generation == "cpu" and shape.isdigit() and int(shape) > 0:
        return _cpu(int(shape), cores or os.cpu_count() or 1)
    if shape not in SHAPES.get(generation, ()):
        near = nearest(name, [f"{g}:{s}" for g, shapes in SHAPES.items() for s in shapes], cutoff=0.7)
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
    if not os.environ.get("JAX_PLATFORMS"):  # else jax would look for a TPU and take it
        jax.config.update("jax_platforms", "cpu")
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name} cannot be compiled for here ({reason}): pip install 'chestx-jax[tpu]' brings the compiler"
        ) from error
    return Topology(name, chip, shape, tuple(description.devices))


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
    return Topology("local", TPUS[lite] if lite else known[0], (len(devices),), tuple(devices))

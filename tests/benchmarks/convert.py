"""Time and peak memory of converting a full-size random checkpoint.

`python -m tests.benchmarks.convert MODEL WORKDIR TOKENIZER_FOLDER`.

MODEL is one of tests/model/hf/test_shapes.py: qwen2-vl-2b, for example. Writes a bfloat16 checkpoint of the shape with
random bits, converts it HF → Orbax → HF in processes of their own, and compares the two folders' weights byte for byte.
"""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time

import ml_dtypes
import numpy as np

from chestx_jax.model.hf import safetensors
from chestx_jax.model.hf.config import to_hf
from chestx_jax.model.hf.names import stored, weights
from tests.model.hf.test_shapes import MODELS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SHARD_GB = 4


def random_checkpoint(folder: pathlib.Path, name: str, tokenizer: pathlib.Path) -> int:
    """Writes a checkpoint folder of finite random weights; returns its size in bytes."""
    from chestx_jax.tokens.interchange import sidecar_files, token_ids
    from chestx_jax.tokens.tokenizer import load_tokenizer

    config, rng = MODELS[name], np.random.default_rng(0)
    dtype = np.dtype(ml_dtypes.bfloat16)
    folder.mkdir(parents=True)
    specs = [(stored(config, tensor), dtype, weight.shape) for weight in weights(config) for tensor in weight.names]
    shards = [specs[i :: len(specs) // 60 + 1] for i in range(len(specs) // 60 + 1)]
    weight_map = {}
    for number, shard in enumerate(shards):
        file = f"part-{number}.safetensors"
        weight_map |= {tensor: file for tensor, _, _ in shard}
        # a byte of 0x3f as exponent keeps every value finite
        bits = (rng.integers(0, 256, math.prod(shape), np.uint8).astype(np.uint16) | 0x3F00 for _, _, shape in shard)
        safetensors.write(folder / file, shard, bits)
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(to_hf(config, token_ids(load_tokenizer(tokenizer)), "bfloat16")))
    for file, path in sidecar_files(tokenizer).items():
        shutil.copyfile(path, folder / file)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def timed(*arguments: str) -> tuple[float, float]:
    """Seconds and peak GB of resident memory of one conversion."""
    start = time.monotonic()
    program = [sys.executable, "-m", "chestx_jax.convert", f"--shard-gb={SHARD_GB}", *arguments]
    pid = subprocess.Popen(program, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}).pid
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed")
    return time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    name, work, tokenizer = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    size = random_checkpoint(work / "source", name, tokenizer)
    for there, back in (("hf:source", "orbax:orbax"), ("orbax:orbax", "hf:back")):
        paths = [f"{flag}={side.partition(':')[0]}:{work / side.partition(':')[2]}" for flag, side in
                 (("--from", there), ("--to", back))]  # fmt: skip
        seconds, peak = timed(*paths)
        print(f"{name} {there} → {back}: {size / 1e9:.2f} GB in {seconds:.0f} s, peak {peak:.2f} GB = "
              f"{peak * 1e9 / size:.2f} × the checkpoint", flush=True)  # fmt: skip
    ours, theirs = safetensors.find(work / "source"), safetensors.find(work / "back")
    bits = lambda tensor: tensor.map().view(np.uint16)  # noqa: E731
    different = [
        name for name in ours if name not in theirs or not np.array_equal(bits(ours[name]), bits(theirs[name]))
    ]
    print(f"{len(ours) - len(different)} of {len(ours)} tensors are identical bit for bit")


if __name__ == "__main__":
    main()

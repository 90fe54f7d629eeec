"""`python -m chestx_jax.convert --from=hf:DIR_OR_ID --to=orbax:DIR` and back: checkpoints between their two forms.

--dtype=float32|bfloat16 (default: what keeps every bit), --shard-gb=5 (size of safetensors files),
--to=adapter:DIR --base=DIR_OR_ID writes low-rank additions alone, for peft.
--tokenizer=DIR_OR_ID (for Orbax parameters that came without one), --verify (re-read and compare every tensor).
"""

import shutil
import time
from pathlib import Path

import jax
from absl import flags, logging

from chestx_jax import checkpoint, cli
from chestx_jax.config import to_dict
from chestx_jax.errors import UserError
from chestx_jax.export import export_model
from chestx_jax.inference.loaded_model import SIDECAR_FOLDER, model_config, sidecar_folder, source
from chestx_jax.model import hf
from chestx_jax.model.config import with_compute
from chestx_jax.model.hf.hub import resolve
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.interchange import sidecar_files

FROM = flags.DEFINE_string("from", None, "hf:FOLDER, hf:OWNER/NAME[@REVISION] or orbax:FOLDER")
TO = flags.DEFINE_string("to", None, "orbax:FOLDER, hf:FOLDER or adapter:FOLDER")
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "of the weights written; default: every bit is kept")
SHARD_GB = flags.DEFINE_float("shard-gb", 5.0, "largest safetensors file, in 10^9 bytes", lower_bound=1e-6)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder or hub name of the tokenizer, where the source has none")
BASE = flags.DEFINE_string("base", None, "folder or hub name that peft shall load an adapter onto")
VERIFY = flags.DEFINE_bool("verify", False, "read the result again and compare every tensor")

PIECES = 8


def main(arguments: list[str]) -> int:
    del arguments
    logging.set_verbosity(logging.WARNING)  # Orbax narrates every step
    jax.config.update("jax_num_cpu_devices", PIECES)  # of one host: Orbax copies a device's piece of an array at a time
    begun = time.monotonic()
    (kind, folder), (to, target) = source(FROM.value or "", "--from"), _target(TO.value or "")
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    model = model_config(kind, folder)
    if kind == "hf":
        model = with_compute(model, param_dtype=DTYPE.value or hf.source_dtype(folder))
        params = hf.load(folder, model, mesh)
    else:
        params = checkpoint.load_params(folder, model, mesh)
    tokenizer = resolve(TOKENIZER.value) if TOKENIZER.value else sidecar_folder(kind, folder)
    if to == "orbax":
        checkpoint.save_params(target, params, to_dict(model))
        for name, path in sidecar_files(tokenizer).items():
            (target / SIDECAR_FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(path, target / SIDECAR_FOLDER / name)
    elif to == "adapter":
        hf.save_adapter(target, model, params, BASE.value or "")
    else:
        export_model(target, model, params, tokenizer, None, DTYPE.value, int(SHARD_GB.value * 1e9))
    print(f"{FROM.value} → {TO.value} in {time.monotonic() - begun:.0f} s", flush=True)
    if VERIFY.value and to != "adapter":
        if to == "orbax" and kind == "hf":
            del params  # the two sides need not be in memory together
            params = checkpoint.load_params(target, model, mesh)
        wrong = hf.differing(target if to == "hf" else folder, model, params)
        if wrong:
            raise UserError(f"{TO.value} differs from {FROM.value} in {', '.join(wrong)}: convert again.")
        print("verified: every tensor agrees bit for bit", flush=True)
    return 0


def _target(place: str) -> tuple[str, Path]:
    kind, _, folder = place.partition(":")
    if kind not in ("hf", "orbax", "adapter") or not folder:
        raise UserError(f"--to={place}: write hf:FOLDER, orbax:FOLDER or adapter:FOLDER.")
    if kind == "adapter" and not BASE.value:
        raise UserError("--to=adapter needs --base, the model that peft shall load the adapter onto.")
    return kind, Path(folder)


if __name__ == "__main__":
    flags.mark_flags_as_required(["from", "to"])
    cli.run(main)

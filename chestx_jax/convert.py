"""`python -m chestx_jax.convert --from=hf:DIR_OR_ID --to=orbax:DIR` and back: checkpoints between their two forms.

--dtype=float32|bfloat16 (default: what keeps every bit), --shard-gb=5 (size of safetensors files),
--to=adapter:DIR --base=DIR_OR_ID writes low-rank additions alone, for peft.
--tokenizer=DIR_OR_ID (for Orbax parameters that came without one), --verify (re-read and compare every tensor).
"""

import time

import jax
from absl import flags, logging

from chestx_jax import cli
from chestx_jax.errors import UserError
from chestx_jax.inference.loaded_model import find_settings
from chestx_jax.inference.places import (
    find_checkpoint,
    load_params,
    model_config,
    parse_place,
    save_checkpoint,
)
from chestx_jax.model import hf
from chestx_jax.model.config import with_compute
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.patches import squash_notice

FROM = flags.DEFINE_string("from", None, "hf:FOLDER, hf:OWNER/NAME[@REVISION] or orbax:FOLDER")
TO = flags.DEFINE_string("to", None, "orbax:FOLDER, hf:FOLDER or adapter:FOLDER")
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "of the weights written; default: every bit is kept")
SHARD_GB = flags.DEFINE_float("shard-gb", 5.0, "largest safetensors file, in 10^9 bytes", lower_bound=1e-6)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder or hub name of the tokenizer, where the source has none")
BASE = flags.DEFINE_string("base", None, "folder or hub name that peft shall load an adapter onto")
VERIFY = flags.DEFINE_bool("verify", False, "read the result again and compare every tensor")

CPU_DEVICES = 8  # Orbax copies a device's piece of an array at a time: the more devices, the less memory


def main(arguments: list[str]) -> int:
    del arguments
    logging.set_verbosity(logging.WARNING)  # Orbax narrates every step
    jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
    started = time.monotonic()
    source = find_checkpoint(FROM.value or "", f"--from={FROM.value}: write hf:FOLDER, hf:OWNER/NAME or orbax:FOLDER.")
    target_advice = f"--to={TO.value}: write hf:FOLDER, orbax:FOLDER or adapter:FOLDER."
    target = parse_place(TO.value or "", ("hf", "orbax", "adapter"), target_advice)
    if target.kind == "adapter" and not BASE.value:
        raise UserError("--to=adapter needs --base, the model that peft shall load the adapter onto.")
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    model = model_config(source)
    if source.kind == "hf":
        model = with_compute(model, param_dtype=DTYPE.value or hf.source_dtype(source.folder))
    params = load_params(source, model, mesh)
    tokenizer, image = find_settings(source, TOKENIZER.value)
    if target.kind == "adapter":
        hf.save_adapter(target.folder, model, params, BASE.value or "")
    else:
        save_checkpoint(target, model, params, tokenizer, image, DTYPE.value, int(SHARD_GB.value * 1e9))
        if target.kind == "hf" and image and (notice := squash_notice(image)):
            print(f"note: {notice}", flush=True)
    print(f"{FROM.value} → {TO.value} in {time.monotonic() - started:.0f} s", flush=True)
    if VERIFY.value and target.kind != "adapter":
        if target.kind == "orbax" and source.kind == "hf":
            del params  # the two sides need not be in memory together
            params = load_params(target, model, mesh)
        differing = hf.differing(target.folder if target.kind == "hf" else source.folder, model, params)
        if differing:
            raise UserError(f"{TO.value} differs from {FROM.value} in {', '.join(differing)}: convert again.")
        print("verified: every tensor agrees bit for bit", flush=True)
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["from", "to"])
    cli.run(main)

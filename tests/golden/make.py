"""Writes tests/golden/*.npz from transformers in torch: `python tests/golden/make.py [FAMILY…]`,
with the `parity` extra.

Each parameter is drawn by numpy, seeded by its path, so that the files need hold results alone.
"""

import pathlib
import sys
import tempfile
import zlib

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent)]

from chestx_jax.model import hf  # noqa: E402
from chestx_jax.model.qwen_vl import shapes  # noqa: E402
from tests.helpers.tiny_models import PAD, TOKEN_IDS, examples, image_spec, tiny  # noqa: E402

CASES = {
    "qwen2_vl": {"family": "qwen2_vl", "heads": 4, "kv_heads": 2},
    "qwen2_5_vl": {"family": "qwen2_5_vl", "heads": 7, "kv_heads": 1, "tied": True},
    "qwen3_vl": {"family": "qwen3_vl", "heads": 6, "width": 64, "deepstack": (0, 1)},
}
NEW = 16


def parameters(config):
    """Random parameters, the same with every version of jax: norms near 1, the rest near 0."""
    params = {}
    for path, leaf in flatten_dict(shapes(config)).items():
        rng = np.random.default_rng(zlib.crc32("/".join(path).encode()))
        centre = 1.0 if path[-1] == "scale" else 0.0
        params[path] = (centre + 0.15 * rng.standard_normal(leaf.shape)).astype(np.float32)
    return unflatten_dict(params)


def main() -> None:
    import torch
    import transformers

    from tests.model.hf.test_parity import torch_inputs

    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        config = tiny(**case)
        with tempfile.TemporaryDirectory() as folder:
            hf.save(f"{folder}/model", config, jax.tree.map(jax.numpy.asarray, parameters(config)), TOKEN_IDS, {})
            model = getattr(transformers, config.architecture.transformers).from_pretrained(
                f"{folder}/model", dtype=torch.float32
            )
        rows, results = examples(image_spec(config).patch_pixels), {}
        with torch.no_grad():
            scores = model(**torch_inputs(rows)).logits.numpy()
            for i, row in enumerate(rows):
                results[f"last_{i}"] = scores[i, len(row.ids) - 1]
                out = model.generate(
                    **torch_inputs([row]), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=PAD
                )
                results[f"greedy_{i}"] = out[0, len(row.ids) :].numpy().astype(np.int32)
        np.savez_compressed(HERE / f"{name}.npz", **results)


if __name__ == "__main__":
    main()

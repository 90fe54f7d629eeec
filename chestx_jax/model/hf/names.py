"""Which Hugging Face tensor is which parameter: one table, used in both directions.

Names are in the short form of the first released checkpoints (`model.layers…`, `visual…`). Newer versions of
transformers in memory, and newer families on disk, use a longer form (`model.language_model…`, `model.visual…`), which
`canonical` maps to the short one.
"""

import re
from dataclasses import dataclass

import numpy as np
from flax.traverse_util import flatten_dict

from chestx_jax.model.config import ModelConfig
from chestx_jax.model.lora import without_adapters
from chestx_jax.model.qwen_vl import shapes

# tensor name | path of the parameter | layout (see `_weight`); {} is the layer number
_DECODER = """
model.embed_tokens.weight                          | embedding                          | same
lm_head.weight                                     | head                               | linear
model.norm.weight                                  | decoder/norm/scale                 | same
model.layers.{}.input_layernorm.weight             | decoder/layers/attention_norm/scale | same
model.layers.{}.self_attn.q_proj.weight            | decoder/layers/attention/q/kernel  | linear
model.layers.{}.self_attn.q_proj.bias              | decoder/layers/attention/q/bias    | same
model.layers.{}.self_attn.q_norm.weight            | decoder/layers/attention/q_norm/scale | same
model.layers.{}.self_attn.k_proj.weight            | decoder/layers/attention/k/kernel  | linear
model.layers.{}.self_attn.k_proj.bias              | decoder/layers/attention/k/bias    | same
model.layers.{}.self_attn.k_norm.weight            | decoder/layers/attention/k_norm/scale | same
model.layers.{}.self_attn.v_proj.weight            | decoder/layers/attention/v/kernel  | linear
model.layers.{}.self_attn.v_proj.bias              | decoder/layers/attention/v/bias    | same
model.layers.{}.self_attn.o_proj.weight            | decoder/layers/attention/o/kernel  | linear
model.layers.{}.post_attention_layernorm.weight    | decoder/layers/mlp_norm/scale      | same
model.layers.{}.mlp.gate_proj.weight               | decoder/layers/mlp/gate/kernel     | linear
model.layers.{}.mlp.up_proj.weight                 | decoder/layers/mlp/up/kernel       | linear
model.layers.{}.mlp.down_proj.weight               | decoder/layers/mlp/down/kernel     | linear
"""
_VISION = """
visual.patch_embed.proj.weight                     | vision/patch_embed/kernel          | patches
visual.patch_embed.proj.bias                       | vision/patch_embed/bias            | same
visual.pos_embed.weight                            | vision/position_table              | same
visual.blocks.{}.norm1.weight                      | vision/layers/norm1/scale          | same
visual.blocks.{}.norm1.bias                        | vision/layers/norm1/bias           | same
visual.blocks.{}.norm2.weight                      | vision/layers/norm2/scale          | same
visual.blocks.{}.norm2.bias                        | vision/layers/norm2/bias           | same
visual.blocks.{}.attn.qkv.weight                   | vision/layers/attention/qkv_kernel | qkv
visual.blocks.{}.attn.qkv.bias                     | vision/layers/attention/qkv_bias   | flat
visual.blocks.{}.attn.proj.weight                  | vision/layers/attention/proj/kernel | linear
visual.blocks.{}.attn.proj.bias                    | vision/layers/attention/proj/bias  | same
"""
_MERGER = """
visual.merger.ln_q.weight                          | vision/merger_norm/scale           | same
visual.merger.ln_q.bias                            | vision/merger_norm/bias            | same
visual.merger.mlp.0.weight                         | vision/merger_up/kernel            | linear
visual.merger.mlp.0.bias                           | vision/merger_up/bias              | same
visual.merger.mlp.2.weight                         | vision/merger_down/kernel          | linear
visual.merger.mlp.2.bias                           | vision/merger_down/bias            | same
"""
_DEEPSTACK_MERGERS = """
visual.merger.norm.weight                          | vision/merger_norm/scale           | same
visual.merger.norm.bias                            | vision/merger_norm/bias            | same
visual.merger.linear_fc1.weight                    | vision/merger_up/kernel            | linear
visual.merger.linear_fc1.bias                      | vision/merger_up/bias              | same
visual.merger.linear_fc2.weight                    | vision/merger_down/kernel          | linear
visual.merger.linear_fc2.bias                      | vision/merger_down/bias            | same
visual.deepstack_merger_list.{}.norm.weight        | vision/merger_deepstack/norm/scale | same
visual.deepstack_merger_list.{}.norm.bias          | vision/merger_deepstack/norm/bias  | same
visual.deepstack_merger_list.{}.linear_fc1.weight  | vision/merger_deepstack/up/kernel  | linear
visual.deepstack_merger_list.{}.linear_fc1.bias    | vision/merger_deepstack/up/bias    | same
visual.deepstack_merger_list.{}.linear_fc2.weight  | vision/merger_deepstack/down/kernel | linear
visual.deepstack_merger_list.{}.linear_fc2.bias    | vision/merger_deepstack/down/bias  | same
"""
_VISION_MLP = {
    "quick_gelu": """
visual.blocks.{}.mlp.fc1.weight                    | vision/layers/mlp/up/kernel        | linear
visual.blocks.{}.mlp.fc1.bias                      | vision/layers/mlp/up/bias          | same
visual.blocks.{}.mlp.fc2.weight                    | vision/layers/mlp/down/kernel      | linear
visual.blocks.{}.mlp.fc2.bias                      | vision/layers/mlp/down/bias        | same
""",
    "gelu_tanh": """
visual.blocks.{}.mlp.linear_fc1.weight             | vision/layers/mlp/up/kernel        | linear
visual.blocks.{}.mlp.linear_fc1.bias               | vision/layers/mlp/up/bias          | same
visual.blocks.{}.mlp.linear_fc2.weight             | vision/layers/mlp/down/kernel      | linear
visual.blocks.{}.mlp.linear_fc2.bias               | vision/layers/mlp/down/bias        | same
""",
    "swiglu": """
visual.blocks.{}.mlp.gate_proj.weight              | vision/layers/mlp/gate/kernel      | linear
visual.blocks.{}.mlp.gate_proj.bias                | vision/layers/mlp/gate/bias        | same
visual.blocks.{}.mlp.up_proj.weight                | vision/layers/mlp/up/kernel        | linear
visual.blocks.{}.mlp.up_proj.bias                  | vision/layers/mlp/up/bias          | same
visual.blocks.{}.mlp.down_proj.weight              | vision/layers/mlp/down/kernel      | linear
visual.blocks.{}.mlp.down_proj.bias                | vision/layers/mlp/down/bias        | same
""",
}


@dataclass(frozen=True)
class Weight:
    """One row of the table for a given model: `parameter = tensor.reshape(split).transpose(axes)`, per layer."""

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]  # of the tensor on disk
    split: tuple[int, ...]
    axes: tuple[int, ...]
    layers: int  # tensors stacked along the parameter's first dimension; 0: the parameter is one tensor

    @property
    def names(self) -> list[str]:
        """The tensors this parameter is made of, in layer order."""
        return [self.name.format(layer) for layer in range(self.layers)] if self.layers else [self.name]

    def to_parameter(self, tensor: np.ndarray) -> np.ndarray:
        """A view of one tensor in the parameter's layout."""
        return tensor.reshape(self.split).transpose(self.axes)

    def to_tensor(self, parameter: np.ndarray) -> np.ndarray:
        """One parameter, or one layer of a stacked one, in the tensor's layout."""
        return parameter.transpose(np.argsort(self.axes)).reshape(self.shape)


def weights(config: ModelConfig) -> list[Weight]:
    """Every parameter of the model with its tensors, in the order they are written. Adapters are left out.

    Raises ValueError for a parameter that is not in the table.
    """
    parameters = flatten_dict(shapes(without_adapters(config)))
    architecture = config.architecture
    text = _DECODER + _VISION + _VISION_MLP[architecture.vision_mlp]
    text += _DEEPSTACK_MERGERS if architecture.deepstack else _MERGER
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line]
    table = []
    for name, path, layout in rows:
        key = tuple(path.split("/"))
        if key in parameters:
            table.append(_weight(name, key, layout, parameters[key].shape, config))
    unnamed = set(parameters) - {weight.path for weight in table}
    if unnamed:
        raise ValueError(f"parameters without a tensor name: {sorted(unnamed)}")
    return table


def stored(config: ModelConfig, name: str) -> str:
    """The name that released checkpoints of the model's family give the tensor that the table calls `name`."""
    return in_memory(name) if config.architecture.nested_names else name


def canonical(name: str) -> str:
    """A tensor's name as the table has it."""
    return re.sub(r"^model\.visual\.", "visual.", re.sub(r"^model\.language_model\.", "model.", name))


def is_buffer(name: str) -> bool:
    """Whether a tensor is a constant of the rotary embedding, which some checkpoints store among the weights."""
    return re.search(r"(^|\.)rotary_(pos_)?emb\.", name) is not None


def in_memory(name: str) -> str:
    """The inverse of `canonical`: the name that transformers 5 gives the tensor of a loaded model."""
    if name.startswith("visual."):
        return f"model.{name}"
    return re.sub(r"^model\.", "model.language_model.", name)


def _weight(name: str, path: tuple[str, ...], layout: str, shape: tuple[int, ...], config: ModelConfig) -> Weight:
    layers, shape = (shape[0], shape[1:]) if "{}" in name else (0, shape)
    axes = {"linear": (1, 0), "patches": (1, 0), "qkv": (2, 0, 1)}.get(layout, tuple(range(len(shape))))
    split = tuple(shape[axis] for axis in np.argsort(axes))
    on_disk = split
    if layout == "patches":  # a convolution whose kernel is one patch
        vision = config.vision
        size = vision.patch_size
        on_disk = (split[0], vision.channels, vision.temporal_patch_size, size, size)
    if layout in ("qkv", "flat"):
        on_disk = (split[0] * split[1], *split[2:])
    return Weight(name, path, on_disk, split, axes, layers)

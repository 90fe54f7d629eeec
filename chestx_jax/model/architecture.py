"""What the model families differ in, apart from sizes: which modules they are built from."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Architecture:
    """The modules of a family. Sizes are fields of `ModelConfig`; those of a module that it lacks are not read."""

    transformers: str  # class of transformers that runs such a checkpoint
    pixel_mean: tuple[float, float, float]  # of the films' channels, for checkpoints without image settings
    pixel_std: tuple[float, float, float]
    nested_names: bool  # released tensors are named as in memory, `model.language_model…` and `model.visual…`
    projection_bias: bool  # of the decoder's queries, keys and values
    head_dim: bool  # heads may have another width than width / heads
    qk_norm: bool  # RMS norms of each head's queries and keys
    interleaved_mrope: bool  # the three positions take turns in rotating the frequencies; else one section each
    vision_norm: Literal["layer", "rms"]
    vision_mlp: Literal["quick_gelu", "gelu_tanh", "swiglu"]
    vision_windows: bool  # attention within windows, but for some layers
    patch_bias: bool  # of the patch embedding
    position_table: bool  # learned positions of patches, interpolated to the image's grid
    deepstack: bool  # features of several vision layers are added to the first decoder layers


QWEN2_VL = Architecture(
    transformers="Qwen2VLForConditionalGeneration",
    pixel_mean=(0.48145466, 0.4578275, 0.40821073),
    pixel_std=(0.26862954, 0.26130258, 0.27577711),
    nested_names=False,
    projection_bias=True,
    head_dim=False,
    qk_norm=False,
    interleaved_mrope=False,
    vision_norm="layer",
    vision_mlp="quick_gelu",
    vision_windows=False,
    patch_bias=False,
    position_table=False,
    deepstack=False,
)
QWEN2_5_VL = replace(
    QWEN2_VL,
    transformers="Qwen2_5_VLForConditionalGeneration",
    vision_norm="rms",
    vision_mlp="swiglu",
    vision_windows=True,
)
QWEN3_VL = replace(
    QWEN2_VL,
    transformers="Qwen3VLForConditionalGeneration",
    pixel_mean=(0.5, 0.5, 0.5),
    pixel_std=(0.5, 0.5, 0.5),
    nested_names=True,
    projection_bias=False,
    head_dim=True,
    qk_norm=True,
    interleaved_mrope=True,
    vision_mlp="gelu_tanh",
    patch_bias=True,
    position_table=True,
    deepstack=True,
)

Family = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]  # as `model_type` of config.json has it
ARCHITECTURES: dict[str, Architecture] = {"qwen2_vl": QWEN2_VL, "qwen2_5_vl": QWEN2_5_VL, "qwen3_vl": QWEN3_VL}

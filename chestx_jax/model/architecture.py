"""What the model families differ in, apart from sizes: which modules they are built from."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Architecture:
    """The modules of a family. Sizes are fields of `ModelConfig`; those of a module that it lacks are not read."""

    transformers: str  # class of transformers that runs such a checkpoint
    vision_norm: Literal["layer", "rms"]
    vision_mlp: Literal["quick_gelu", "swiglu"]
    vision_windows: bool  # attention within windows, but for some layers


QWEN2_VL = Architecture(
    transformers="Qwen2VLForConditionalGeneration", vision_norm="layer", vision_mlp="quick_gelu", vision_windows=False
)
QWEN2_5_VL = replace(
    QWEN2_VL,
    transformers="Qwen2_5_VLForConditionalGeneration",
    vision_norm="rms",
    vision_mlp="swiglu",
    vision_windows=True,
)

Family = Literal["qwen2_vl", "qwen2_5_vl"]  # as `model_type` of config.json has it
ARCHITECTURES: dict[Family, Architecture] = {"qwen2_vl": QWEN2_VL, "qwen2_5_vl": QWEN2_5_VL}

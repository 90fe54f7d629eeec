"""Shapes of the model and how it computes, as frozen dataclasses."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from chestx_jax.model.architecture import ARCHITECTURES, Architecture, Family


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower. Those of a module that the family lacks (`model/architecture.py`) are not read."""

    former_fields: ClassVar[frozenset[str]] = frozenset({"norm", "gated"})  # of older files; the family says it

    layers: int = 32
    width: int = 1280
    heads: int = 16
    hidden: int = 5120
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    channels: int = 3
    window: int = 112  # windows: the side in pixels
    full_attention_layers: tuple[int, ...] = (7, 15, 23, 31)  # windows: the layers that attend over the whole image

    @property
    def patch_values(self) -> int:
        """Values of one flattened patch."""
        return self.channels * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True)
class ComputeConfig:
    """How the model is computed: changes speed and memory, and results by rounding alone."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    # What backward recomputes: nothing; each layer; all but its matrix products; or the decoder's MLPs and attention
    # scores only, while what its attention's linear layers read and write goes to the host's memory and back.
    remat: Literal["none", "layer", "dots", "offload"] = "layer"
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    unroll: int = 1  # layers per iteration of the layer loop; 0: all (XLA on CPU runs loop bodies on one core)
    head_chunk: int = 0  # positions of a row whose logits exist at once; 0: the whole row
    # Weights while sampling: a copy in `dtype`, gathered over fsdp once; or fetched for every token.
    decoding: Literal["gathered", "split"] = "gathered"
    head_parts: int = 0  # chunks of the vocabulary, of which one has logits at a time, in place of head_chunk; 0: one


@dataclass(frozen=True)
class TuningConfig:
    """What is trained, part by part: all weights, none, or low-rank adapters on layers named by `targets`."""

    vision: Literal["train", "freeze", "lora"] = "train"
    merger: Literal["train", "freeze", "lora"] = "train"
    decoder: Literal["train", "freeze", "lora"] = "train"  # embedding and head included
    rank: int = 8
    alpha: float = 32.0
    dropout: float = 0.1  # of the adapters' input, in supervised steps
    targets: tuple[str, ...] = ("q", "v")  # regular expressions of whole names: q, k, v, o, proj, gate, up, down…
    seed: int = 0  # of the dropout and of fresh adapters


@dataclass(frozen=True)
class ModelConfig:
    """A decoder with M-RoPE and grouped-query attention behind a vision tower: its family and its sizes."""

    family: Family = "qwen2_vl"
    vocab_size: int = 152064
    layers: int = 28
    width: int = 3584
    heads: int = 28
    kv_heads: int = 4
    hidden: int = 18944
    rope_theta: float = 1e6
    mrope_section: tuple[int, int, int] = (16, 24, 24)
    norm_eps: float = 1e-6
    tied: bool = False
    max_positions: int = 32768
    initializer_range: float = 0.02
    residual_range: float = 0.02  # initializer range of the linear layers that write to the residual stream
    start: Literal["random", "induction"] = "random"  # the decoder's attention when training from scratch
    vision: VisionConfig = field(default_factory=VisionConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)

    @property
    def architecture(self) -> Architecture:
        """The modules that the family is built from."""
        return ARCHITECTURES[self.family]

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def with_compute(config: ModelConfig, **changes) -> ModelConfig:
    """The same model computed another way: `with_compute(config, dtype="float32")`."""
    return replace(config, compute=replace(config.compute, **changes))

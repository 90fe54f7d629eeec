"""Shapes of the model and how it computes, as frozen dataclasses."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from chestx_jax.config import SEED_LIMIT, bounded
from chestx_jax.errors import UserError
from chestx_jax.model.architecture import ARCHITECTURES, Architecture, Family


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower. Those of a module that the family lacks (`model/architecture.py`) are not read."""

    former_fields: ClassVar[frozenset[str]] = frozenset({"norm", "gated"})  # of older files; the family says it

    layers: int = bounded(32, min=1)
    width: int = bounded(1280, min=1)
    heads: int = bounded(16, min=1)
    hidden: int = bounded(5120, min=1)
    patch_size: int = bounded(14, min=1)
    temporal_patch_size: int = bounded(2, min=1)
    merge_size: int = bounded(2, min=1)
    channels: int = bounded(3, min=3, max=3)
    window: int = bounded(112, min=0)  # windows: the side in pixels
    # windows: the layers that attend over the whole image
    full_attention_layers: tuple[int, ...] = bounded((7, 15, 23, 31), min=0)
    table_side: int = bounded(48, min=1)  # position table: entries a side
    # DeepStack: the layers whose features go to the decoder's first layers, in order
    deepstack_layers: tuple[int, ...] = bounded((8, 16, 24), min=0)

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
    # auto: splash on TPU; cudnn on GPUs in bfloat16; xla elsewhere. pallas: jax's Triton kernel over packed rows, which
    # needs no mask in memory, and cudnn after a cache. Single queries (decoding) are xla's everywhere.
    attention: Literal["auto", "xla", "cudnn", "pallas", "splash"] = "auto"
    # Layers per iteration of the layer loop; 0: all (XLA on CPU runs loop bodies on one core)
    unroll: int = bounded(1, min=0)
    head_chunk: int = bounded(0, min=0)  # positions of a row whose logits exist at once; 0: the whole row
    # Weights while sampling: a copy in `dtype`, gathered over fsdp once; or fetched for every token.
    decoding: Literal["gathered", "split"] = "gathered"
    # Chunks of the vocabulary, of which one has logits at a time, in place of head_chunk; 0: one
    head_parts: int = bounded(0, min=0)


@dataclass(frozen=True)
class TuningConfig:
    """What is trained, part by part: all weights, none, or low-rank adapters on layers named by `targets`."""

    vision: Literal["train", "freeze", "lora"] = "train"
    merger: Literal["train", "freeze", "lora"] = "train"
    decoder: Literal["train", "freeze", "lora"] = "train"  # embedding and head included
    rank: int = bounded(8, min=1)
    alpha: float = bounded(32.0, above=0.0)
    dropout: float = bounded(0.1, min=0.0, below=1.0)  # of the adapters' input, in supervised steps
    targets: tuple[str, ...] = ("q", "v")  # regular expressions of whole names: q, k, v, o, proj, gate, up, down…
    seed: int = bounded(0, min=0, max=SEED_LIMIT)  # of the dropout and of fresh adapters

    def __post_init__(self) -> None:
        if self.vision == self.merger == self.decoder == "freeze":
            raise UserError("vision, merger and decoder are all frozen: train one of them, or give it adapters.")
        for target in self.targets:
            try:
                re.compile(target)
            except re.error as error:
                raise UserError(f"targets holds {target!r}, which is no regular expression ({error}).") from error


@dataclass(frozen=True)
class ModelConfig:
    """A decoder with M-RoPE and grouped-query attention behind a vision tower: its family and its sizes."""

    of_checkpoint: ClassVar[tuple[str, ...]] = (
        *("family", "vocab_size", "layers", "width", "heads", "kv_heads", "head_dim", "hidden", "rope_theta"),
        *("mrope_section", "norm_eps", "tied", "max_positions", "initializer_range", "residual_range"),
    )  # beside the vision tower

    family: Family = "qwen2_vl"
    vocab_size: int = bounded(152064, min=1)
    layers: int = bounded(28, min=1)
    width: int = bounded(3584, min=1)
    heads: int = bounded(28, min=1)
    kv_heads: int = bounded(4, min=1)
    head_dim: int = bounded(0, min=0)  # width of a head; 0: width / heads
    hidden: int = bounded(18944, min=1)
    rope_theta: float = bounded(1e6, above=0.0)
    mrope_section: tuple[int, int, int] = bounded((16, 24, 24), min=0)
    norm_eps: float = bounded(1e-6, above=0.0)
    tied: bool = False
    max_positions: int = bounded(32768, min=1)
    initializer_range: float = bounded(0.02, min=0.0)
    # Initializer range of the linear layers that write to the residual stream
    residual_range: float = bounded(0.02, min=0.0)
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
        return self.head_dim or self.width // self.heads

    def __post_init__(self) -> None:
        vision = self.vision
        if not self.head_dim:
            _check_divides("width", self.width, "heads", self.heads)
        elif not self.architecture.head_dim and self.head_dim * self.heads != self.width:
            raise UserError(f"head_dim is {self.head_dim}: in {self.family} it is width / heads, set it to 0.")
        _check_divides("heads", self.heads, "kv_heads", self.kv_heads)
        if 2 * sum(self.mrope_section) != self.head_width:
            raise UserError(
                f"mrope_section is {self.mrope_section}, which sums to {sum(self.mrope_section)}: make it half the "
                f"width of a head, {self.head_width // 2}."
            )
        _check_divides("vision.width", vision.width, "4 × vision.heads", 4 * vision.heads)  # pairs for rows and columns
        if self.architecture.vision_mlp == "quick_gelu":  # written as a whole multiple
            _check_divides("vision.hidden", vision.hidden, "vision.width", vision.width)
        if self.architecture.vision_windows:
            unit = vision.patch_size * vision.merge_size
            _check_divides("vision.window", vision.window, "vision.patch_size × vision.merge_size", unit)
        chosen = vision.deepstack_layers
        ascending = list(chosen) == sorted(set(chosen).intersection(range(vision.layers)))
        if self.architecture.deepstack and not (ascending and len(chosen) <= self.layers):
            raise UserError(
                f"vision.deepstack_layers is {chosen}: name layers of the tower, 0 to {vision.layers - 1}, in "
                f"ascending order, and no more than the decoder's {self.layers} layers."
            )


def _check_divides(name: str, size: int, part: str, parts: int) -> None:
    if size % parts or not size:
        raise UserError(f"{name} is {size} and {part} {parts}: make the first a multiple of the second.")


def with_architecture(config: ModelConfig, other: ModelConfig) -> ModelConfig:
    """The model `other`, computed and tuned as `config`."""
    return replace(config, vision=other.vision, **{name: getattr(other, name) for name in ModelConfig.of_checkpoint})


def architecture(config: ModelConfig) -> dict[str, Any]:
    """What decides the function that a model's weights compute, by dotted name; fields that the family does not read
    and those that matter to new weights alone are left out."""
    modules = config.architecture
    unread = set() if modules.vision_windows else {"window", "full_attention_layers"}
    unread |= (set() if modules.position_table else {"table_side"}) | (
        set() if modules.deepstack else {"deepstack_layers"}
    )
    vision = {f"vision.{name}": value for name, value in vars(config.vision).items() if name not in unread}
    new_weights = {"max_positions", "initializer_range", "residual_range"}
    decoder = {name: getattr(config, name) for name in ModelConfig.of_checkpoint if name not in new_weights}
    return decoder | {"head_dim": config.head_width} | vision


def with_compute(config: ModelConfig, **changes) -> ModelConfig:
    """The same model computed another way: `with_compute(config, dtype="float32")`."""
    return replace(config, compute=replace(config.compute, **changes))

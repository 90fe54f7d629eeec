"""FLOPs of the model from its shapes alone. A multiply and an add are two; only matrix products count.

Two counts. `useful` is what the literature divides by time for MFU: forward and backward (three forwards), causal
attention at half of the score matrix, nothing twice. `executed` is what the configuration asks for, to check the
compiled program with: the full score matrix in attention (splash attention skips blocks above the diagonal, and adds a
product in its backward pass), layers and logits recomputed in the backward pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chestx_jax.model.config import ModelConfig
from chestx_jax.model.splash import computed_share, fits_kernel
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, SftConfig
from chestx_jax.rollout.schedule import STEPS, LaneShape
from chestx_jax.tokens.rows import RowsConfig


@dataclass(frozen=True)
class Forward:
    """FLOPs of one forward pass over all rows, by part."""

    linear: float = 0.0  # linear layers, but for those that write the MLP's output
    offloaded: float = 0.0  # of `linear`, the decoder's attention, whose results remat="offload" keeps
    mlp_output: float = 0.0  # the linear layers left out of `linear`: backward does not ask for their results
    attention_full: float = 0.0  # attention over full score matrices
    attention_computed: float = 0.0  # what the kernel computes of it
    attention_fused: float = 0.0  # twice what kernels recompute of it in the backward pass
    patch_embed: float = 0.0  # its input needs no gradient
    merger: float = 0.0
    head: float = 0.0

    @property
    def without_attention(self) -> float:
        return self.linear + self.mlp_output + self.patch_embed + self.merger + self.head

    def __add__(self, other: "Forward") -> "Forward":
        return Forward(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class ModelFlops:
    """A program's FLOPs over all devices, and the tokens that it processes."""

    executed: float
    useful: float
    tokens: float


def decoder_forward(model: ModelConfig, tokens: float, length: int, past: int = 0, head: float = 0.0) -> Forward:
    """`tokens` tokens in rows of `length` after `past` cached ones; `head` of them get logits."""
    heads, kv_heads = model.heads * model.head_width, model.kv_heads * model.head_width
    attention = 2 * (2 * model.width * heads + 2 * model.width * kv_heads)
    full = model.layers * tokens * (length + past) * 4 * heads
    computed, fused = _attention(model, full, length, past, causal=True)
    return Forward(
        linear=model.layers * tokens * (attention + 4 * model.width * model.hidden),
        offloaded=model.layers * tokens * attention,
        mlp_output=model.layers * tokens * 2 * model.width * model.hidden,
        attention_full=full,
        attention_computed=computed,
        attention_fused=fused,
        head=head * 2 * model.width * model.vocab_size,
    )


def vision_forward(model: ModelConfig, images: float, patches: int) -> Forward:
    """The vision tower over `images` slots of `patches` patches. Windows are masks: the full scores are computed."""
    tower = model.vision
    total, block = images * patches, tower.merge_size**2
    merged, mergers = block * tower.width, 1 + model.architecture.deepstack * len(tower.deepstack_layers)
    up = 2 * tower.width * tower.hidden * (2 if model.architecture.vision_mlp == "swiglu" else 1)
    full = tower.layers * total * patches * 4 * tower.width
    computed, fused = _attention(model, full, patches, 0, causal=False)
    return Forward(
        linear=tower.layers * total * (8 * tower.width**2 + up),
        mlp_output=tower.layers * total * 2 * tower.width * tower.hidden,
        attention_full=full,
        attention_computed=computed,
        attention_fused=fused,
        patch_embed=total * 2 * tower.patch_values * tower.width,
        merger=mergers * total / block * 2 * (merged * merged + merged * model.width),
    )


def _attention(model: ModelConfig, full: float, length: int, past: int, causal: bool) -> tuple[float, float]:
    """What the model's attention computes of the `full` scores of `length` queries after `past` keys, and twice what
    its backward recomputes of that: nothing without a kernel, a product of splash's and cuDNN's, three of pallas'."""
    backend, fits = model.compute.attention, all(fits_kernel(length, keys) for keys in (length, past))
    if backend == "splash" and fits:
        computed = full * computed_share(length, length + past, past, causal)
        return computed, computed
    if backend == "pallas" and fits and not past:
        computed = full / 2 if causal else full
        return computed, 3 * computed
    return full, full if backend in ("cudnn", "pallas") and length > 1 else 0.0


def executed_flops(model: ModelConfig, forward: Forward, trained: bool, positions: int) -> float:
    """FLOPs that the compiled program runs over rows whose logits are made for `positions` tokens."""
    if not trained:
        return forward.without_attention + forward.attention_computed
    # The fused backward has five products to the forward's two (pallas: seven).
    attention = 3 * forward.attention_computed + forward.attention_fused / 2
    recomputed = 0.0
    if model.compute.remat == "layer":
        recomputed = forward.linear + forward.attention_computed
    elif model.compute.remat == "dots":
        recomputed = forward.attention_computed
    elif model.compute.remat == "offload":
        recomputed = forward.linear - forward.offloaded + forward.attention_computed
    chunked = model.compute.head_chunk and model.compute.head_chunk < positions
    if chunked or model.compute.head_parts > 1:
        recomputed += forward.head
    return 3 * forward.without_attention - forward.patch_embed + attention + recomputed


def model_flops(
    name: str,
    model: ModelConfig,
    stage: SftConfig | GrpoConfig | EvaluationConfig,
    layout: LaneShape | None = None,
) -> ModelFlops | None:
    """The count of the program called `name`, None where no model runs in it. `model.compute.attention` is resolved;
    `layout` is that of all slots, for a program that samples."""
    if isinstance(stage, SftConfig):
        length, tokens = stage.rows.length, float(stage.batch * stage.rows.length)
        text = decoder_forward(model, tokens, length, head=tokens)
        trained = name.endswith("/step")
        return _with_images(model, text, text.attention_full / 2, stage.rows, stage.batch, trained, length, tokens)
    if isinstance(stage, EvaluationConfig):
        assert layout
        return _sampling(name, model, stage.rows, layout, stage.length)
    if name in ("grpo/prefill", "grpo/decode"):
        assert layout
        return _sampling(name, model, stage.rows, layout, stage.sampling.length)
    if name in ("grpo/logprobs", "grpo/reference", "grpo/gradients"):
        return _completions(model, stage, trained=name == "grpo/gradients")
    return None


def real_flops(
    model: ModelConfig,
    prompts: Sequence[int],
    completions: Sequence[Sequence[int]] | None,
    films: Mapping[int, int],
    trained: bool,
) -> float:
    """Useful FLOPs of a batch as it is, without padding: causal attention over each sequence's own length.

    Args:
      prompts: tokens of each sequence; all of them get logits where there are no completions.
      completions: tokens of each prompt's completions, which alone get logits; the prompt is computed once for them.
      films: how many films have so many patches.
    """
    prompt = np.asarray(prompts, np.float64)
    tokens, pairs = prompt.sum(), np.square(prompt).sum() / 2
    head = tokens
    if completions is not None:
        own = np.asarray(completions, np.float64)
        head = own.sum()
        tokens, pairs = tokens + head, pairs + (own * prompt[:, None] + np.square(own) / 2).sum()
    images = sum((vision_forward(model, count, patches) for patches, count in films.items()), Forward())
    forward = decoder_forward(model, float(tokens), 0, head=float(head)) + images
    attention = model.layers * 4 * model.heads * model.head_width * float(pairs)
    once = forward.without_attention + images.attention_full + attention
    return 3 * once - forward.patch_embed if trained else once


def _with_images(
    model: ModelConfig,
    text: Forward,
    causal: float,
    rows: RowsConfig,
    count: int,
    trained: bool,
    positions: int,
    tokens: float,
) -> ModelFlops:
    """`text` with the images of `count` rows; `causal` is what of its attention is not masked."""
    images = vision_forward(model, count * rows.image_slots, rows.patches)
    forward = text + images
    once = forward.without_attention + images.attention_full + causal
    useful = 3 * once - forward.patch_embed if trained else once
    return ModelFlops(executed_flops(model, forward, trained, positions), useful, tokens)


def _completions(model: ModelConfig, stage: GrpoConfig, trained: bool) -> ModelFlops:
    """A micro-batch of the longest bucket: prompts once, completions after them."""
    prompt_length, length, count = stage.rows.length, stage.sampling.length, stage.prompts // stage.parts
    prompt_tokens = float(count * prompt_length)
    completion_tokens = float(count * stage.sampling.group * length)
    prompts = decoder_forward(model, prompt_tokens, prompt_length)
    completions = decoder_forward(model, completion_tokens, length, prompt_length, head=completion_tokens)
    visible, slots = prompt_length + length / 2, prompt_length + length
    causal = prompts.attention_full / 2 + completions.attention_full * visible / slots
    tokens = prompt_tokens + completion_tokens
    return _with_images(model, prompts + completions, causal, stage.rows, count, trained, length, tokens)


def _sampling(name: str, model: ModelConfig, rows: RowsConfig, layout: LaneShape, length: int) -> ModelFlops | None:
    """Prompts that are prefilled together; or a few tokens of every slot, near the length limit."""
    if name.endswith("/prefill"):
        prompts, tokens = layout.admitted, float(layout.admitted * rows.length)
        prefill = decoder_forward(model, tokens, rows.length)
        return _with_images(model, prefill, prefill.attention_full / 2, rows, prompts, False, rows.length, tokens)
    if name.endswith("/decode"):
        tokens = float(layout.lanes * layout.width * STEPS)
        decoding = decoder_forward(model, tokens, 1, rows.length + length - 1, head=tokens)
        return ModelFlops(executed_flops(model, decoding, False, 1), executed_flops(model, decoding, False, 1), tokens)
    return None

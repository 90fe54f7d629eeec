"""FLOPs of the model from its shapes alone: what a program must do, for MFU, and what it is told to do, for checking
the compiled one. A multiply and an add are two; only matrix products count.

Two counts. `useful` is what the literature divides by time for MFU: forward and backward (three forwards), causal
attention at half its square, nothing twice. `executed` adds what the configuration asks for beyond: whole squares in
attention, layers and scores recomputed in the backward pass.
"""

from dataclasses import dataclass

from chestx_jax.data.packing import RowsConfig
from chestx_jax.model.config import ModelConfig
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, SftConfig


@dataclass(frozen=True)
class Forward:
    """FLOPs of one forward pass over all rows, by part. The products that backward need not redo are told apart."""

    maps: float  # linear maps of the decoder, without the one that writes the MLP's output
    down: float  # that one
    attention: float  # whole squares
    vision_maps: float  # of the tower's layers, without the MLP's output
    vision_down: float
    vision_attention: float
    patches: float  # patch embedding: its input needs no gradient
    merger: float
    head: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def decoder(model: ModelConfig, tokens: float, scores: float, head: float) -> Forward:
    """Over `tokens` tokens with `scores` pairs of query and key; `head` tokens are scored over the vocabulary."""
    wide = model.heads * model.head_width
    own = model.kv_heads * model.head_width
    maps = 2 * (2 * model.width * wide + 2 * model.width * own + 2 * model.width * model.hidden)
    return Forward(
        maps=model.layers * tokens * maps,
        down=model.layers * tokens * 2 * model.width * model.hidden,
        attention=model.layers * scores * 4 * wide,
        vision_maps=0.0, vision_down=0.0, vision_attention=0.0, patches=0.0, merger=0.0,
        head=head * 2 * model.width * model.vocab_size,
    )  # fmt: skip


def vision(model: ModelConfig, images: float, patches: float) -> Forward:
    """The tower over `images` slots of `patches` patches. Windows are masks: whole squares are computed."""
    tower = model.vision
    total, block = images * patches, tower.merge_size**2
    wide = block * tower.width
    up = 2 * tower.width * tower.hidden * (2 if tower.gated else 1)
    return Forward(
        maps=0.0, down=0.0, attention=0.0,
        vision_maps=tower.layers * total * (8 * tower.width**2 + up),
        vision_down=tower.layers * total * 2 * tower.width * tower.hidden,
        vision_attention=tower.layers * images * patches**2 * 4 * tower.width,
        patches=total * 2 * tower.patch_values * tower.width,
        merger=total / block * 2 * (wide * wide + wide * model.width),
        head=0.0,
    )  # fmt: skip


def plus(*parts: Forward) -> Forward:
    """Part by part."""
    return Forward(*(sum(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


def useful(forward: Forward, causal: float, trained: bool) -> float:
    """FLOPs that count for MFU. `causal` is the share of the decoder's attention scores that are not masked."""
    once = forward.total - forward.attention * (1 - causal)
    return once * 3 if trained else once


def executed(model: ModelConfig, forward: Forward, trained: bool, positions: int) -> float:
    """FLOPs that the compiled program runs over rows whose scores are made for `positions` places at a time."""
    if not trained:
        return forward.total
    again = 0.0
    if model.compute.remat == "layer":  # all but the products whose results backward does not ask for
        again += forward.maps + forward.attention + forward.vision_maps + forward.vision_attention
    elif model.compute.remat == "dots":
        again += forward.attention + forward.vision_attention
    chunked = model.compute.head_chunk and model.compute.head_chunk < positions
    if chunked or model.compute.head_parts > 1:
        again += forward.head
    return 3 * forward.total - forward.patches + again


@dataclass(frozen=True)
class Expected:
    """What a program is for: its FLOPs over all devices, and the tokens it deals with."""

    executed: float
    useful: float
    tokens: float


def expected(name: str, model: ModelConfig, stage: SftConfig | GrpoConfig | EvaluationConfig) -> Expected | None:
    """The count of a program of `programs`, None where it has no model in it."""
    rows = stage.rows
    if isinstance(stage, SftConfig):
        return _rows(model, rows, stage.batch, trained=name.endswith("/step"))
    if isinstance(stage, EvaluationConfig):
        return _generation(model, rows, stage.batch, 1, stage.length)
    if name == "grpo/rollout":
        return _generation(model, rows, stage.prompts, stage.sampling.group, stage.sampling.length)
    if name in ("grpo/logprobs", "grpo/reference", "grpo/step"):
        return _completions(model, stage, trained=name == "grpo/step")
    return None


def _films(model: ModelConfig, rows: RowsConfig, count: int) -> Forward:
    return vision(model, count * rows.image_slots, rows.patches)


def _rows(model: ModelConfig, rows: RowsConfig, count: int, trained: bool) -> Expected:
    tokens = float(count * rows.length)
    forward = plus(decoder(model, tokens, tokens * rows.length, tokens), _films(model, rows, count))
    return Expected(executed(model, forward, trained, rows.length), useful(forward, 0.5, trained), tokens)


def _completions(model: ModelConfig, stage: GrpoConfig, trained: bool) -> Expected:
    """Prompts once, completions after them."""
    count, group, length = stage.prompts, stage.sampling.group, stage.sampling.length
    prompt, said = float(count * stage.rows.length), float(count * group * length)
    before = decoder(model, prompt, prompt * stage.rows.length, 0.0)
    after = decoder(model, said, said * (stage.rows.length + length), said)
    forward = plus(before, after, _films(model, stage.rows, count))
    seen = prompt * stage.rows.length / 2 + said * (stage.rows.length + length / 2)
    causal = seen / (prompt * stage.rows.length + said * (stage.rows.length + length))
    return Expected(executed(model, forward, trained, length), useful(forward, causal, trained), prompt + said)


def _generation(model: ModelConfig, rows: RowsConfig, count: int, group: int, length: int) -> Expected:
    """Prefill and the longest decoding: every completion to its limit, every slot of the cache read."""
    prompt, steps = float(count * rows.length), float(count * group * (length - 1))
    before = decoder(model, prompt, prompt * rows.length, 0.0)
    # a token being decoded sees all slots and itself; the first token comes from the prompt's last place
    after = decoder(model, steps, steps * (rows.length + length + 1), steps + count * group)
    forward = plus(before, after, _films(model, rows, count))
    causal = (prompt * rows.length / 2 + steps * (rows.length + length / 2)) / (
        prompt * rows.length + steps * (rows.length + length + 1)
    )
    return Expected(
        executed(model, forward, False, length), useful(forward, causal, False), float(count * group * length)
    )

"""FLOPs of the model from its shapes alone: what a program must do, for MFU, and what it is told to do, for checking
the compiled one. A multiply and an add are two; only matrix products count.

Two counts. `useful` is what the literature divides by time for MFU: forward and backward (three forwards), causal
attention at half its square, nothing twice. `executed` is what the configuration asks for: whole squares in attention
(splash attention leaves out blocks above the diagonal, and adds a product in its backward pass), layers and scores
recomputed in the backward pass.
"""

from dataclasses import dataclass

from chestx_jax.model.config import ModelConfig
from chestx_jax.model.splash import computed_share, fits_kernel
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, SftConfig
from chestx_jax.tokens.rows import RowsConfig


@dataclass(frozen=True)
class Forward:
    """FLOPs of one forward pass over all rows, by part. The products that backward need not redo are told apart."""

    maps: float = 0.0  # linear maps of the layers, without those that write the MLP's output
    kept: float = 0.0  # of `maps`, those of the decoder's attention, whose results remat="offload" keeps
    down: float = 0.0  # those
    squares: float = 0.0  # attention, whole squares
    run: float = 0.0  # attention, what the kernel computes of them
    fused: float = 0.0  # of `run`, by kernels that recompute the scores in the backward pass
    patches: float = 0.0  # patch embedding: its input needs no gradient
    merger: float = 0.0
    head: float = 0.0

    @property
    def rest(self) -> float:
        """All but attention."""
        return self.maps + self.down + self.patches + self.merger + self.head


def decoder(model: ModelConfig, tokens: float, length: int, past: int = 0, head: float = 0.0) -> Forward:
    """`tokens` tokens in rows of `length` after `past` cached ones; `head` tokens are scored over the vocabulary."""
    wide, own = model.heads * model.head_width, model.kv_heads * model.head_width
    kept = 2 * (2 * model.width * wide + 2 * model.width * own)
    maps = kept + 4 * model.width * model.hidden
    squares = model.layers * tokens * (length + past) * 4 * wide
    splash = (
        model.compute.attention == "splash" and fits_kernel(length, length) and (not past or fits_kernel(length, past))
    )
    run = squares * computed_share(length, length + past, past, causal=True) if splash else squares
    return Forward(
        maps=model.layers * tokens * maps,
        kept=model.layers * tokens * kept,
        down=model.layers * tokens * 2 * model.width * model.hidden,
        squares=squares,
        run=run,
        fused=run if splash else 0.0,
        head=head * 2 * model.width * model.vocab_size,
    )


def vision(model: ModelConfig, images: float, patches: int) -> Forward:
    """The tower over `images` slots of `patches` patches. Windows are masks: whole squares are computed."""
    tower = model.vision
    total, block = images * patches, tower.merge_size**2
    wide = block * tower.width
    up = 2 * tower.width * tower.hidden * (2 if tower.gated else 1)
    squares = tower.layers * total * patches * 4 * tower.width
    splash = model.compute.attention == "splash" and fits_kernel(patches, patches)
    return Forward(
        maps=tower.layers * total * (8 * tower.width**2 + up),
        down=tower.layers * total * 2 * tower.width * tower.hidden,
        squares=squares,
        run=squares,
        fused=squares if splash else 0.0,
        patches=total * 2 * tower.patch_values * tower.width,
        merger=total / block * 2 * (wide * wide + wide * model.width),
    )


def plus(*parts: Forward) -> Forward:
    """Part by part."""
    return Forward(*(sum(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


def executed(model: ModelConfig, forward: Forward, trained: bool, positions: int) -> float:
    """FLOPs that the compiled program runs over rows whose scores are made for `positions` places at a time."""
    if not trained:
        return forward.rest + forward.run
    attention = 3 * forward.run + forward.fused / 2  # the fused backward has five products to the forward's two
    again = 0.0
    if model.compute.remat == "layer":  # all but the products whose results backward does not ask for
        again = forward.maps + forward.run
    elif model.compute.remat == "dots":
        again = forward.run
    elif model.compute.remat == "offload":
        again = forward.maps - forward.kept + forward.run
    chunked = model.compute.head_chunk and model.compute.head_chunk < positions
    if chunked or model.compute.head_parts > 1:
        again += forward.head
    return 3 * forward.rest - forward.patches + attention + again


@dataclass(frozen=True)
class Expected:
    """What a program is for: its FLOPs over all devices, and the tokens it deals with."""

    executed: float
    useful: float
    tokens: float


def expected(name: str, model: ModelConfig, stage: SftConfig | GrpoConfig | EvaluationConfig) -> Expected | None:
    """The count of a program of `programs`, None where it has no model in it. `model` names its attention."""
    rows = stage.rows
    if isinstance(stage, SftConfig):
        tokens = float(stage.batch * rows.length)
        text = decoder(model, tokens, rows.length, head=tokens)
        return _counted(model, text, text.squares / 2, rows, stage.batch, name.endswith("/step"), rows.length, tokens)
    if isinstance(stage, EvaluationConfig):
        return _generation(model, rows, stage.batch, 1, stage.length)
    if name == "grpo/rollout":
        return _generation(model, rows, stage.prompts, stage.sampling.group, stage.sampling.length)
    if name in ("grpo/logprobs", "grpo/reference", "grpo/step"):
        return _completions(model, stage, trained=name == "grpo/step")
    return None


def _counted(
    model: ModelConfig,
    text: Forward,
    causal: float,
    rows: RowsConfig,
    count: int,
    trained: bool,
    positions: int,
    tokens: float,
) -> Expected:
    """`text` with the films of `count` rows; `causal` is what of its attention is not masked."""
    films = vision(model, count * rows.image_slots, rows.patches)
    forward = plus(text, films)
    once = forward.rest + films.squares + causal
    useful = 3 * once - forward.patches if trained else once
    return Expected(executed(model, forward, trained, positions), useful, tokens)


def _completions(model: ModelConfig, stage: GrpoConfig, trained: bool) -> Expected:
    """Prompts once, completions after them."""
    count, length, rows = stage.prompts, stage.sampling.length, stage.rows
    prompt, said = float(count * rows.length), float(count * stage.sampling.group * length)
    before = decoder(model, prompt, rows.length)
    after = decoder(model, said, length, rows.length, head=said)
    causal = before.squares / 2 + after.squares * (rows.length + length / 2) / (rows.length + length)
    return _counted(model, plus(before, after), causal, rows, count, trained, length, prompt + said)


def _generation(model: ModelConfig, rows: RowsConfig, count: int, group: int, length: int) -> Expected:
    """Prefill and the longest decoding: every completion to its limit, every slot of the cache read."""
    prompt, steps = float(count * rows.length), float(count * group * (length - 1))
    before = decoder(model, prompt, rows.length)
    # a token being decoded sees all slots and itself; the first token comes from the prompt's last place
    after = decoder(model, steps, 1, rows.length + length, head=steps + count * group)
    causal = before.squares / 2 + after.squares * (rows.length + length / 2) / (rows.length + length + 1)
    return _counted(model, plus(before, after), causal, rows, count, False, length, float(count * group * length))

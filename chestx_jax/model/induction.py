"""Attention that begins as a trained language model's does: heads that look a token back, and induction heads on them.

A random model spends most of a small training run on finding these circuits, without which it can neither copy the
asked label nor look an option up (Olsson et al. 2022, arXiv 2209.11895). Here the first layer's heads look one, two
and three tokens back and note what stood there, each in a place of its own in the residual stream; the heads of the
later layers look for a token that follows what the current one is, or whose two predecessors are the current two, or
that is the current one; the second layer's hand on what they find. All of it is a start: everything is trained on.
Structured starts of attention: Trockman & Kolter 2023, arXiv 2305.09828.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from chestx_jax.errors import UserError
from chestx_jax.model.config import ModelConfig

_TURNING = 5 / 16  # of a head's frequencies, the fastest, tell tokens' distances; the others hardly turn, and match
_SHARPNESS = 1.6  # of matching, in units of a normed token
_NEARNESS = 6.5  # of looking back, in score's square root
_NOISE = 0.3  # share kept of the random start
# What a head's query reads and what its keys offer: the token itself, or what stood 1, 2, 3 tokens before it.
_MATCHES = ((0, 1), (1, 2), (0, 0), (1, 3))
_HANDED_ON = 2  # of these, the first so many write what they find


def with_induction_heads(config: ModelConfig, params: dict, key: Array) -> dict:
    """The random parameters `params` with the decoder's attention begun as above; the places are drawn from `key`.

    Raises UserError for a decoder of one layer or of heads too narrow to hold a place.
    """
    turning = round(config.head_width // 2 * _TURNING)
    size = min(2 * (config.head_width // 2 - turning), config.width // 4)
    if config.layers < 2 or size < 2:
        raise UserError(
            "config.model.start is 'induction', which needs two layers and heads at least 6 wide: enlarge the model, "
            "or set it to 'random'."
        )
    basis = jax.random.orthogonal(key, config.width)[:, : 4 * size]
    places = jnp.split(basis.astype(config.compute.param_dtype), 4, axis=1)
    attention = params["decoder"]["layers"]["attention"]
    back, match = _looking_back(config, attention, places, turning), _matching(config, attention, places, turning)
    begun = jax.tree.map(lambda first, rest: jnp.concatenate([first[:1], rest[1:]]).astype(first.dtype), back, match)
    layers = {**params["decoder"]["layers"], "attention": begun}
    return {**params, "decoder": {**params["decoder"], "layers": layers}}


def _looking_back(config: ModelConfig, attention: dict, places: list[Array], turning: int) -> dict:
    """For the first layer: biases that make head h look 1 + h tokens back, and maps that note the token found there."""
    half = config.head_width // 2
    angles = config.rope_theta ** (-np.arange(half) / half)
    amplitude = _NEARNESS * (np.arange(half) < max(2, turning // 2))
    biases = [np.concatenate([amplitude * np.cos(b * angles), -amplitude * np.sin(b * angles)]) for b in (0, 1, 2, 3)]
    offsets = [1 + head % 3 for head in range(config.heads)]
    notes = [_row(places[offset], config.head_width) for offset in offsets[:3]]
    notes += [jnp.zeros_like(notes[0])] * (config.heads - len(notes))
    found = [_row(places[0], config.head_width).T] * config.kv_heads
    return {
        "q": _linear(attention["q"], attention["q"]["kernel"] * _NOISE, np.concatenate([biases[b] for b in offsets])),
        "k": _linear(attention["k"], attention["k"]["kernel"] * _NOISE, np.tile(biases[0], config.kv_heads)),
        "v": _linear(attention["v"], jnp.concatenate(found, axis=1)),
        "o": _linear(attention["o"], config.initializer_range * jnp.concatenate(notes)),
    }


def _matching(config: ModelConfig, attention: dict, places: list[Array], turning: int) -> dict:
    """For the later layers: queries and keys that meet where the tokens match, and maps that hand on the one found."""
    group = config.heads // config.kv_heads
    pairs = [_MATCHES[i % len(_MATCHES)] for i in range(config.kv_heads)]
    reads = [_still(places[reads], config.head_width, turning) for reads, _ in pairs for _ in range(group)]
    offers = [_still(places[offers], config.head_width, turning) for _, offers in pairs]
    found = _row(places[0], config.head_width)
    handed = [found if head // group < _HANDED_ON else jnp.zeros_like(found) for head in range(config.heads)]
    second = jnp.arange(config.layers)[:, None, None] == 1
    values = jnp.concatenate([found.T] * config.kv_heads, axis=1)
    kernels = {name: attention[name]["kernel"] * _NOISE for name in "qkv"}
    return {
        "q": _linear(attention["q"], kernels["q"] + _SHARPNESS * jnp.concatenate(reads, axis=1)[None]),
        "k": _linear(attention["k"], kernels["k"] + _SHARPNESS * jnp.concatenate(offers, axis=1)[None]),
        "v": _linear(attention["v"], kernels["v"] + values[None]),
        "o": _linear(attention["o"], jnp.where(second, config.initializer_range * jnp.concatenate(handed)[None], 0.0)),
    }


def _linear(like: dict, kernel: Array, bias: np.ndarray | None = None) -> dict:
    """A linear map's parameters, the same for every layer where they are given for one."""
    kernel = jnp.broadcast_to(kernel, like["kernel"].shape)
    if bias is None:
        return {**like, "kernel": kernel}
    return {**like, "kernel": kernel, "bias": jnp.broadcast_to(jnp.asarray(bias, kernel.dtype), like["bias"].shape)}


def _row(place_WxZ: Float[Array, "W Z"], head_width: int) -> Float[Array, "E W"]:
    """A place as what a head writes to the residual stream, filled up with zeros to the head's width."""
    return jnp.pad(place_WxZ.T, ((0, head_width - place_WxZ.shape[1]), (0, 0)))


def _still(place_WxZ: Float[Array, "W Z"], head_width: int, turning: int) -> Float[Array, "W E"]:
    """A place as what a head's query or key reads, in the pairs (j, j + E/2) of the head that hardly turn."""
    half = head_width // 2
    still = np.concatenate([np.arange(turning, half), half + np.arange(turning, half)])[: place_WxZ.shape[1]]
    return jnp.zeros((place_WxZ.shape[0], head_width), place_WxZ.dtype).at[:, still].set(place_WxZ)

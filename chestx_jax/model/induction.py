"""Initial attention like a trained language model's: heads that attend to preceding tokens, and induction heads.

A random model spends most of a small training run on forming these circuits, without which it can neither copy the
asked label nor look an option up (Olsson et al. 2022, arXiv 2209.11895). The first layer's heads attend one, two or
three tokens back, and three of them write that token into a subspace of the residual stream of their own. The heads of
later layers attend to tokens that follow what the current token is or follows, or that equal it; the second layer
writes what it finds to the residual stream. Training changes all of it. Structured initialization of attention:
Trockman & Kolter 2023, arXiv 2305.09828.

Attending by distance alone takes a constant part of queries and keys. Where their layers have no bias, it is read from
a direction in which every embedded token and visual token is shifted alike (a tied head gives all tokens the same logit
for it); where queries and keys are normed, the norms' scales set how sharp attention is.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from chestx_jax.errors import UserError
from chestx_jax.model.config import ModelConfig

_POSITIONAL = 5 / 16  # share of a head's frequencies, the fastest, that encode distance; the slower ones match tokens
_SHARPNESS = 1.6  # of matching, in units of a normed token
_NEARNESS = 6.5  # of attending to a preceding token: square root of the logit
_NOISE = 0.3  # share of the random initialization that is kept
_SHIFT = 0.5  # of embedded tokens where there are no biases, in units of their own length
# What a head's query reads and what its keys offer: 0 the token itself, n the token n before it.
_MATCHES = ((0, 1), (1, 2), (0, 0), (1, 3))
_WRITING = 2  # the first so many kinds of heads write their values to the residual stream


def with_induction_heads(config: ModelConfig, params: dict, key: Array) -> dict:
    """The random parameters `params` with the decoder's attention set as above; `key` draws the subspaces.

    Raises UserError for a decoder of one layer or of heads too narrow to hold a subspace.
    """
    positional = round(config.head_width // 2 * _POSITIONAL)
    biased = config.architecture.projection_bias
    size = min(2 * (config.head_width // 2 - positional), (config.width - (not biased)) // 4)
    if config.layers < 2 or size < 2:
        raise UserError(
            "config.model.start is 'induction', which needs two layers and heads at least 6 wide: enlarge the model, "
            "or set it to 'random'."
        )
    basis = jax.random.orthogonal(key, config.width).astype(config.compute.param_dtype)
    subspaces = jnp.split(basis[:, : 4 * size], 4, axis=1)  # of the token and its 3 predecessors
    direction = None if biased else basis[:, -1]
    attention = params["decoder"]["layers"]["attention"]
    first = _previous_token_attention(config, attention, subspaces, positional, direction)
    later = _matching_attention(config, attention, subspaces, positional)
    combined = jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[1:]]).astype(a.dtype), first, later)
    layers = {**params["decoder"]["layers"], "attention": combined}
    params = {**params, "decoder": {**params["decoder"], "layers": layers}}
    return params if direction is None else _shift_tokens(config, params, direction)


def _shift_tokens(config: ModelConfig, params: dict, direction: Float[Array, " D"]) -> dict:
    """The parameters with every embedded token and every visual token moved to the same place along `direction`."""
    shift = _SHIFT * config.initializer_range * config.width**0.5 * direction
    across = lambda x: x - jnp.outer(x @ direction, direction)  # noqa: E731
    down = params["vision"]["merger_down"]
    down = {**down, "kernel": across(down["kernel"]), "bias": down["bias"] + shift}
    embedding = across(params["embedding"]) + shift[None]
    return {**params, "embedding": embedding, "vision": {**params["vision"], "merger_down": down}}


def _previous_token_attention(
    config: ModelConfig, attention: dict, subspaces: list[Array], positional: int, direction: Array | None
) -> dict:
    """For the first layer: queries and keys with a constant part, a bias or what they read from `direction`, by which
    head h attends 1 + h % 3 tokens back, and values that copy that token."""
    half = config.head_width // 2
    angles = config.rope_theta ** (-np.arange(half) / half)
    amplitude = _NEARNESS * (np.arange(half) < max(2, positional // 2))
    biases = [np.concatenate([amplitude * np.cos(b * angles), -amplitude * np.sin(b * angles)]) for b in (0, 1, 2, 3)]
    offsets = [1 + head % 3 for head in range(config.heads)]
    outputs = [_write(subspaces[offset], config.head_width) for offset in offsets[:3]]
    outputs += [jnp.zeros_like(outputs[0])] * (config.heads - len(outputs))
    values = [_undo_shift(config) * _write(subspaces[0], config.head_width).T] * config.kv_heads
    constants = {"q": np.concatenate([biases[b] for b in offsets]), "k": np.tile(biases[0], config.kv_heads)}
    queries_keys = {name: _constant(attention[name], constants[name], direction, config.width) for name in "qk"}
    # A norm gives a head's vector the length √E whatever it was; here it points where `amplitude` does.
    scale = np.linalg.norm(biases[0]) / config.head_width**0.5
    return {
        **queries_keys,
        "v": _linear(attention["v"], jnp.concatenate(values, axis=1)),
        "o": _linear(attention["o"], config.initializer_range * jnp.concatenate(outputs)),
        **_norms(attention, scale),
    }


def _constant(like: dict, constant: np.ndarray, direction: Array | None, width: int) -> dict:
    """A linear layer that gives little but `constant`: its bias, or what a normed token's share along `direction` makes
    of it."""
    noise = like["kernel"] * _NOISE
    if direction is None:
        return _linear(like, noise, constant)
    along = width**0.5 * _SHIFT / (1 + _SHIFT**2) ** 0.5  # where a normed token is
    return _linear(like, noise + jnp.outer(direction, jnp.asarray(constant / along, direction.dtype))[None])


def _undo_shift(config: ModelConfig) -> float:
    """By what the shift shortens the rest of a normed token."""
    return 1.0 if config.architecture.projection_bias else (1 + _SHIFT**2) ** 0.5


def _norms(attention: dict, scale: float) -> dict:
    """The norms of queries and keys, where the model has them, with one scale."""
    names = [name for name in ("q_norm", "k_norm") if name in attention]
    return {name: {"scale": jnp.full_like(attention[name]["scale"], scale)} for name in names}


def _matching_attention(config: ModelConfig, attention: dict, subspaces: list[Array], positional: int) -> dict:
    """For the later layers: queries and keys whose product is large where tokens match, and values that copy tokens."""
    group = config.heads // config.kv_heads
    pairs = [_MATCHES[i % len(_MATCHES)] for i in range(config.kv_heads)]
    queries = [_read(subspaces[query], config.head_width, positional) for query, _ in pairs for _ in range(group)]
    keys = [_read(subspaces[key], config.head_width, positional) for _, key in pairs]
    output = _write(subspaces[0], config.head_width)
    outputs = [output if head // group < _WRITING else jnp.zeros_like(output) for head in range(config.heads)]
    second = jnp.arange(config.layers)[:, None, None] == 1
    values = _undo_shift(config) * jnp.concatenate([output.T] * config.kv_heads, axis=1)
    kernels = {name: attention[name]["kernel"] * _NOISE for name in "qkv"}
    return {
        "q": _linear(attention["q"], kernels["q"] + _SHARPNESS * jnp.concatenate(queries, axis=1)[None]),
        "k": _linear(attention["k"], kernels["k"] + _SHARPNESS * jnp.concatenate(keys, axis=1)[None]),
        "v": _linear(attention["v"], kernels["v"] + values[None]),
        "o": _linear(attention["o"], jnp.where(second, config.initializer_range * jnp.concatenate(outputs)[None], 0.0)),
        # As sharp as without norms: a token's part in a subspace has about the length √size.
        **_norms(attention, _SHARPNESS * (subspaces[0].shape[1] / config.head_width) ** 0.5),
    }


def _linear(like: dict, kernel: Array, bias: np.ndarray | None = None) -> dict:
    """A linear layer's stacked parameters; a kernel or bias of one layer is repeated for all."""
    kernel = jnp.broadcast_to(kernel, like["kernel"].shape)
    if bias is None:
        return {**like, "kernel": kernel}
    return {**like, "kernel": kernel, "bias": jnp.broadcast_to(jnp.asarray(bias, kernel.dtype), like["bias"].shape)}


def _write(subspace: Float[Array, "D size"], head_width: int) -> Float[Array, "E D"]:
    """The kernel by which a head writes to a subspace of the residual stream, padded with zeros to the head's width."""
    return jnp.pad(subspace.T, ((0, head_width - subspace.shape[1]), (0, 0)))


def _read(subspace: Float[Array, "D size"], head_width: int, positional: int) -> Float[Array, "D E"]:
    """The kernel by which a head's query or key reads a subspace, into the pairs (j, j + E/2) that hardly rotate."""
    half = head_width // 2
    slow = np.concatenate([np.arange(positional, half), half + np.arange(positional, half)])[: subspace.shape[1]]
    return jnp.zeros((subspace.shape[0], head_width), subspace.dtype).at[:, slow].set(subspace)

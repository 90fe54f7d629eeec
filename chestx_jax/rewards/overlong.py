"""What a completion costs for reaching the length limit."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from chestx_jax.config import bounded
from chestx_jax.errors import UserError


@dataclass(frozen=True)
class OverlongConfig:
    """Completions near the length limit: kept as they are, left out of the loss where it cuts them off, or their reward
    lowered linearly over the last `buffer` tokens by up to `penalty` (DAPO's soft overlong punishment, arXiv
    2503.14476, equation 13)."""

    rule: Literal["keep", "mask", "penalise"] = "keep"
    buffer: int = bounded(0, min=0)  # tokens; 0: a fifth of the limit, as DAPO's 4,096 of 20,480
    penalty: float = bounded(1.0, min=0.0)

    def __post_init__(self) -> None:
        if self.rule == "penalise" and not self.penalty:
            raise UserError("rule=penalise with penalty 0 penalises nothing: raise it above 0.")


def length_penalty(length_B: Int[Array, " B"], limit: int, config: OverlongConfig) -> Float[Array, " B"]:
    """What is subtracted from a completion's reward for nearing `limit` tokens; 0 unless the rule is "penalise"."""
    if config.rule != "penalise":
        return jnp.zeros(length_B.shape, jnp.float32)
    buffer = config.buffer or max(limit // 5, 1)
    over = (length_B - (limit - buffer)).astype(jnp.float32) / jnp.float32(buffer)
    return jnp.float32(config.penalty) * jnp.clip(over, 0.0, 1.0)

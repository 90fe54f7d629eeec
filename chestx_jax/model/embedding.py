"""Token embeddings and logits: operands in the compute dtype, sums in fp32, forward and backward.

Differentiated by JAX's own rules, the gradient of a common id is a sum of thousands of terms in bfloat16, which stops
growing at 256 times a term, and the head's is a product of fp32 scores at a fraction of the speed.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from chestx_jax.sharding import constrain


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def embed_tokens(table_VxD: Float[Array, "V D"], ids_BxL: Int[Array, "B L"], dtype) -> Float[Array, "B L D"]:
    """Rows of the table in `dtype`; their gradients are summed in fp32."""
    table = constrain(table_VxD.astype(dtype), "vocab", None)  # gathered over fsdp once
    return constrain(table[ids_BxL], "batch", None, None)


def _embed_forward(table_VxD: Array, ids_BxL: Array, dtype):
    # A table without elements stands for its dtype.
    return embed_tokens(table_VxD, ids_BxL, dtype), (ids_BxL, jnp.zeros((table_VxD.shape[0], 0), table_VxD.dtype))


def _embed_backward(dtype, saved, gradient_BxLxD: Array):
    ids_BxL, like = saved
    zeros = jnp.zeros((like.shape[0], gradient_BxLxD.shape[-1]), jnp.float32)
    total_VxD = zeros.at[ids_BxL].add(gradient_BxLxD.astype(jnp.float32))
    return constrain(total_VxD, "vocab", None).astype(like.dtype), None


embed_tokens.defvjp(_embed_forward, _embed_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def head_logits(hidden_BxLxD: Float[Array, "B L D"], head_DxV: Float[Array, "D V"], dtype) -> Float[Array, "B L V"]:
    """fp32 logits of the tokens whose columns `head_DxV` holds, the whole vocabulary or a part; the operands of this
    product and of the backward ones are rounded to `dtype`. Gradients have the dtypes of what they belong to."""
    operands = hidden_BxLxD.astype(dtype), head_DxV.astype(dtype)
    logits_BxLxV = jnp.einsum("bld,dv->blv", *operands, preferred_element_type=jnp.float32)
    return constrain(logits_BxLxV, "batch", None, "vocab")


def _head_forward(hidden_BxLxD: Array, head_DxV: Array, dtype):
    return head_logits(hidden_BxLxD, head_DxV, dtype), (hidden_BxLxD, head_DxV)


def _head_backward(dtype, saved, gradient_BxLxV: Array):
    hidden_BxLxD, head_DxV = saved
    gradient = constrain(gradient_BxLxV.astype(dtype), "batch", None, "vocab")
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    of_hidden = product("blv,dv->bld", gradient, head_DxV.astype(dtype))
    of_head = product("bld,blv->dv", hidden_BxLxD.astype(dtype), gradient)
    return of_hidden.astype(hidden_BxLxD.dtype), of_head.astype(head_DxV.dtype)


head_logits.defvjp(_head_forward, _head_backward)

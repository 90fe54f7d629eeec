"""What an executable runs: loops multiplied out, FLOPs by hand, arrays updated in place."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.planning.hlo.parse import parse
from chestx_jax.planning.hlo.schedule import schedule


def compiled_schedule(function, *shapes):
    """The schedule of a function compiled for the CPU."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return schedule(parse(jax.jit(function).lower(*arguments).compile().as_text()))


def total_flops(operations):
    return sum(op.trips * op.flops for op in operations)


@pytest.mark.parametrize(("outer", "inner"), [(3, 5), (7, 1)])
def test_loops_are_multiplied_out(outer, inner):
    """XLA's own count takes a loop's body once."""

    def looped(x, w):
        step = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
        again = lambda x, _: (jax.lax.scan(step, x, w)[0], None)  # noqa: E731
        return jax.lax.scan(again, x, length=outer)[0]

    assert total_flops(compiled_schedule(looped, (8, 32), (inner, 32, 32))) == outer * inner * 2 * 8 * 32 * 32


def test_a_loop_that_may_end_sooner_counts_its_most():
    """As in decoding, where all completions may be done before the limit."""

    def decode(x, w):
        go_on = lambda state: (state[0] < 11) & ~jnp.all(state[1] > 1e6)  # noqa: E731
        return jax.lax.while_loop(go_on, lambda s: (s[0] + 1, s[1] @ w), (jnp.int32(1), x))[1]

    assert total_flops(compiled_schedule(decode, (4, 16), (16, 16))) == 10 * 2 * 4 * 16 * 16


def test_called_computations_are_counted():
    text = """HloModule m

%called (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %e (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  ROOT %c = f32[8,8]{1,0} call(%a), to_apply=%called
}
"""
    assert total_flops(schedule(parse(text))) == 2 * 8**3


@pytest.mark.parametrize(
    ("call", "flops"),
    [
        (
            '(bf16[8,32], s8[4096]) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", backend_config='
            '{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],'
            '"rhs_contracting_dimensions":["0"]}}}',
            2 * 8 * 16 * 32,
        ),
        (
            '(bf16[2,4,64,16], u8[0]) custom-call(%q, %k, %k), custom_call_target="__cudnn$fmhaSoftmax", '
            'backend_config={"cudnn_fmha_backend_config":{"mask_type":"NO_MASK"}}',
            2 * 2 * (2 * 64 * 4) * 16 * 128,
        ),
        (
            '(bf16[2,4,64,16], u8[0]) custom-call(%q, %k, %k), custom_call_target="__cudnn$fmhaSoftmaxBackward", '
            'backend_config={"cudnn_fmha_backend_config":{"mask_type":"PADDING_CAUSAL"}}',
            5 * (2 * 64 * 4) * 16 * 128,
        ),
    ],
    ids=["cuBLAS", "cuDNN", "cuDNN backward, causal"],
)
def test_kernels_of_gpus_are_counted(call, flops):
    text = f"""HloModule m

ENTRY %e (a: bf16[8,16], b: bf16[16,32], q: bf16[2,64,4,16], k: bf16[2,128,2,16]) -> bf16[8,32] {{
  %a = bf16[8,16]{{1,0}} parameter(0)
  %b = bf16[16,32]{{1,0}} parameter(1)
  %q = bf16[2,64,4,16]{{3,2,1,0}} parameter(2)
  %k = bf16[2,128,2,16]{{3,2,1,0}} parameter(3)
  ROOT %c = {call}
}}
"""
    assert total_flops(schedule(parse(text))) == flops


def test_a_collective_that_ends_at_once_covers_nothing():
    """Started and awaited with nothing between, it is waited for; with a product between, it runs beside it."""
    text = """HloModule m

ENTRY %e (a: bf16[64,64]) -> bf16[64,64] {
  %a = bf16[64,64]{1,0} parameter(0)
  %s = bf16[64,64]{1,0} all-reduce-start(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %view = bf16[4096]{0} bitcast(%a)
  BETWEEN
  %d = bf16[64,64]{1,0} all-reduce-done(%s)
  ROOT %r = bf16[64,64]{1,0} copy(%d)
}
"""
    product = "%p = bf16[64,64]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    for between, asynchronous in (("", False), (product, True)):
        (op,) = [op for op in schedule(parse(text.replace("BETWEEN", between))) if op.collective]
        assert op.collective.asynchronous is asynchronous


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_dilated_convolutions_count_where_they_overlap(batch, rows, inner, columns):
    """A batched product as the TPU compiler writes it: the batch is a spatial axis dilated apart."""
    text = f"""HloModule m

ENTRY %e (a: f32[{batch},{rows},{inner}], b: f32[{batch},{inner},{columns}]) -> f32[{batch},{rows},{columns}] {{
  %a = f32[{batch},{rows},{inner}]{{2,1,0}} parameter(0)
  %b = f32[{batch},{inner},{columns}]{{2,1,0}} parameter(1)
  ROOT %c = f32[{batch},{rows},{columns}]{{2,1,0}} convolution(%a, %b), \
window={{size={batch} stride={max(batch - 1, 1)} pad=0_0 lhs_dilate={batch}}}, dim_labels=0bf_0io->0bf
}}
"""
    assert total_flops(schedule(parse(text))) == 2 * batch * rows * inner * columns


def test_what_follows_a_computation_of_the_host_is_another_computation():
    text = """HloModule m

%hosted (a: f32[4]) -> f32[4] {
  ROOT %a = f32[4]{0} parameter(0)
}, execution_thread="host"

%next (b: f32[4]) -> f32[4] {
  ROOT %b = f32[4]{0} parameter(0)
}

ENTRY %e (c: f32[4]) -> f32[4] {
  ROOT %c = f32[4]{0} parameter(0)
}
"""
    assert list(parse(text).computations) == ["hosted", "next", "e"]


def test_an_update_in_place_writes_what_it_updates():
    """Also in a fusion that carries a piece of a running collective, whose own buffers only pass through it."""
    text = """HloModule m

%fused (p0: f32[64,8], p1: f32[8], p2: s32[]) -> (f32[64,8], f32[8]) {
  %p0 = f32[64,8]{1,0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %p2 = s32[] parameter(2)
  %row = f32[1,8]{1,0} bitcast(%p1)
  %zero = s32[] constant(0)
  %put = f32[64,8]{1,0} dynamic-update-slice(%p0, %row, %p2, %zero)
  %mark = f32[8]{0} custom-call(%p1), custom_call_target="AsyncCollectiveDone"
  ROOT %both = (f32[64,8]{1,0}, f32[8]{0}) tuple(%put, %mark)
}

ENTRY %e (a: f32[64,8], b: f32[8], c: s32[]) -> (f32[64,8], f32[8]) {
  %a = f32[64,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %c = s32[] parameter(2)
  ROOT %f = (f32[64,8]{1,0}, f32[8]{0}) fusion(%a, %b, %c), kind=kCustom, output_to_operand_aliasing={{1}: (1, {})}, \
calls=%fused
}
"""
    (op,) = schedule(parse(text))
    assert op.hbm_bytes == 8 * 4 + 4  # the row and the index; not the 64 rows

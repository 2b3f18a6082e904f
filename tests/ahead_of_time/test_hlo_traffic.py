"""Memory traffic counted in the text of compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from vtcav_jax.ahead_of_time.hlo_traffic import array_bytes, program_traffic

FUSIONS = """HloModule program

%sliced (p0: f32[100,8], p1: s32[]) -> f32[2,8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %part = f32[2,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={2,8}
  ROOT %result = f32[2,8]{1,0} add(%part, %part)
}

%written (p0: f32[100,8], p1: f32[2,8], p2: s32[]) -> f32[100,8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = f32[2,8]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %result = f32[100,8]{1,0} dynamic-update-slice(%p0, %p1, %p2, %zero)
}

%body (state: (s32[], f32[100,8])) -> (s32[], f32[100,8]) {
  %state = (s32[], f32[100,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[100,8]{1,0} get-tuple-element(%state), index=1
  %piece = f32[2,8]{1,0} fusion(%x, %i), kind=kLoop, calls=%sliced
  %y = f32[100,8]{1,0} fusion(%x, %piece, %i), kind=kLoop, calls=%written
  ROOT %next = (s32[], f32[100,8]{1,0}) tuple(%i, %y)
}

%condition (state: (s32[], f32[100,8])) -> pred[] {
  %state = (s32[], f32[100,8]{1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (a: f32[100,8], b: bf16[50,8]) -> f32[100,8] {
  %a = f32[100,8]{1,0} parameter(0), metadata={op_name="a (argument)"}
  %b = bf16[50,8]{1,0:T(8,128)(2,1)} parameter(1)
  %c = bf16[50,8]{1,0:T(8,128)(2,1)S(1)} custom-call(%b), custom_call_target="tpu_custom_call"
  %d = bf16[4,8]{1,0} custom-call(%c), custom_call_target="kernel", backend_config={"bytes_accessed":"1234"}
  %e = bf16[4,8]{1,0} custom-call(%b, %d), custom_call_target="other", output_to_operand_aliasing={{}: (1, {})}
  %zero = s32[] constant(0)
  %start = (s32[], f32[100,8]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[100,8]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"50"}}
  ROOT %out = f32[100,8]{1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501 (lines of HLO)


def test_slices_updates_loops_tiles_and_kernels():
    piece, index = 2 * 8 * 4, 4
    iteration = (piece + index + piece) + (piece + index + piece)  # read the slice, write it, and both again
    padded = 56 * 128 * 2  # of which the copy on the chip is no traffic
    replaced = padded + 4 * 8 * 2
    assert program_traffic(FUSIONS) == 50 * iteration + padded + 1234 + replaced


def test_stored_sizes():
    assert array_bytes("f32", "3,5", "1,0") == 60
    assert array_bytes("pred", "3,5", "1,0") == 15
    assert array_bytes("f32", "3,5", "1,0:T(8,128)") == 8 * 128 * 4
    assert array_bytes("bf16", "130,3,5", "0,2,1:T(8,128)(2,1)") == 256 * 3 * 8 * 2
    assert array_bytes("f32", "", "") == 4


def test_a_product_reads_its_operands_and_writes_its_result():
    text = jax.jit(jnp.matmul).lower(jnp.ones((300, 400)), jnp.ones((400, 500))).compile().as_text()
    assert text is not None and program_traffic(text) == 4 * (300 * 400 + 400 * 500 + 300 * 500)


def test_a_loop_of_unknown_length_is_refused():
    text = FUSIONS.replace(', backend_config={"known_trip_count":{"n":"50"}}', "")
    with pytest.raises(ValueError, match="number of iterations depends on data"):
        program_traffic(text)


def test_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        program_traffic("HloModule empty")

"""Serial numbers and big-endian access."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore import be, seq
from tests.support.wrap import WRAP_STARTS


@pytest.mark.parametrize("start", WRAP_STARTS)
@pytest.mark.parametrize("bits", [8, 15, 16, 32])
def test_differences_are_signed_and_survive_the_wrap(start, bits):
    size = 1 << bits
    for step in (-3, -1, 0, 1, 3, size // 2 - 1, -(size // 2 - 1)):
        assert seq.diff((start + step) % size, start % size, bits) == step


@pytest.mark.parametrize("bits", [8, 15, 16, 32])
def test_half_a_turn_counts_as_behind(bits):
    assert seq.diff(1 << (bits - 1), 0, bits) == -(1 << (bits - 1))


@pytest.mark.parametrize("start", WRAP_STARTS)
@pytest.mark.parametrize("bits", [16, 32])
def test_unwrapping_follows_a_sequence_over_many_turns(start, bits):
    size = 1 << bits
    reference = start
    step = size // 3
    for count in range(1, 12):
        reference = seq.unwrap(reference, (start + count * step) % size, bits)
        assert reference == start + count * step


def test_unwrapping_next_to_zero_goes_below_it():
    assert seq.unwrap(0, 65535, 16) == -1
    assert seq.unwrap(-1, 0, 16) == 0


@given(st.integers(-(2**40), 2**40), st.integers(-32768, 32767))
def test_unwrapping_finds_the_nearest_number(reference, distance):
    assert seq.unwrap(reference, (reference + distance) % 65536, 16) == reference + distance


@pytest.mark.parametrize("width", [16, 24, 32, 64])
@given(data=st.binary(min_size=8, max_size=8))
def test_big_endian_reads_and_writes_what_python_does(width, data):
    value = int.from_bytes(data[: width // 8], "big")
    assert be.get(data, width) == value
    assert be.put(value, width) == data[: width // 8]


@pytest.mark.parametrize("width", [16, 24, 32, 64])
def test_big_endian_reads_check_the_length_first(width):
    with pytest.raises(ValueError):
        be.get(bytes(width // 8 - 1), width)

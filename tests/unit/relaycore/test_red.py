"""RFC 2198: what stands in front of the primary block, and nothing that does not add up."""

import struct

import pytest

from relaycore.errs import WireError
from relaycore.red import parse


def red(*blocks: bytes, payload_type: int = 111) -> bytes:
    """Blocks of 20 ms, the primary last."""
    head = b""
    for age, block in enumerate(reversed(blocks[:-1]), 1):
        offset = age * 960 & 0x3FFF
        head = struct.pack("!BBH", 0x80 | payload_type, offset >> 6, (offset & 63) << 10 | len(block)) + head
    return head + bytes([payload_type]) + b"".join(blocks)


@pytest.mark.parametrize("redundant", [(), (b"abc",), (b"", b"a" * 1023), tuple(b"b" * i for i in range(9))])
def test_the_primary_block_is_the_last(redundant):
    packet = red(*redundant, b"voice")
    at, payload_type = parse(packet)
    assert packet[at:] == b"voice" and payload_type == 111


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x80",
        b"\xef\x00\x00",
        b"\xef\x00\x00\x00",
        red(b"abc", b"v")[:-1],
        red(b"abc", b"v")[:-2],
        b"\x6f",
        red(*([b"a"] * 17), b"v"),
        b"\xef\x0f\x03\xff\x6f" + bytes(1023),
        b"\xef\x0f\x00\x01\x6e" + bytes(9),
        b"\xef\x0f\x00\x01\xee\x0f\x00\x01\x6f" + bytes(9),
    ],
    ids=["empty", "cut", "cut header", "no primary header", "no primary", "cut block", "nothing in it", "too many", "one too short",
         "other codec", "other codec before"],
)
def test_what_does_not_add_up_is_refused(packet):
    with pytest.raises(WireError):
        parse(packet)


def test_every_cut_of_a_packet_is_refused():
    packet = red(b"abc", b"de", b"v")
    for end in range(len(packet)):
        with pytest.raises(WireError):
            parse(packet[:end])

"""First-octet demultiplexing over all 65,536 openings of a datagram (RFC 7983 figure 3, RFC 5761 section 4)."""

import pytest

from relaycore import demux


def expected(first: int, second: int) -> str:
    if first < 4:
        return "stun"
    if 20 <= first < 64:
        return "dtls"
    if 128 <= first < 192:
        return "rtcp" if 192 <= second < 224 else "rtp"
    return "other"


def test_every_first_octet_goes_where_the_rfc_says():
    for first in range(256):
        for second in range(256):
            assert demux.kind(bytes([first, second])) == expected(first, second)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x16", b"\x80"])
def test_less_than_two_bytes_are_nobodys(data):
    assert demux.kind(data) == "other"


def test_payload_types_next_to_the_rtcp_range_are_rtp():
    # Marker and payload type 63 (191) and, without it, 96 (224 with the marker).
    assert [demux.kind(bytes([0x80, octet])) for octet in (191, 192, 223, 224)] == ["rtp", "rtcp", "rtcp", "rtp"]

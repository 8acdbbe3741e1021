"""RTP header: vectors, truncation, padding, and agreement with aiortc's reader and writer."""

import pytest
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from relaycore import rtp
from relaycore.errs import NAMES, WireError
from tests.support import vectors


@pytest.mark.parametrize("vector", vectors.good("rtp"), ids=str)
def test_good_packet(vector):
    assert vectors.plain(rtp.parse(vector.data)) == vector.expect


@pytest.mark.parametrize("vector", vectors.bad("rtp"), ids=str)
def test_bad_packet(vector):
    with pytest.raises(WireError, match=f"^{vector.error}$"):
        rtp.parse(vector.data)


@pytest.mark.parametrize("vector", vectors.good("rtp"), ids=str)
def test_truncation_at_every_length_is_refused_or_only_shortens_the_payload(vector):
    whole = rtp.parse(vector.data)
    payload_offset = len(vector.data) - len(whole["payload"]) - whole["padding_bytes"]
    for length in range(len(vector.data)):
        if length < payload_offset:
            with pytest.raises(WireError):
                rtp.parse(vector.data[:length])
        elif whole["padding_bytes"] == 0:
            assert rtp.parse(vector.data[:length])["payload"] == whole["payload"][: length - payload_offset]


def test_a_packet_longer_than_any_datagram_is_refused():
    packet = rtp.write(96, 1, 2, 3)
    assert len(rtp.parse(packet + bytes(65523))["payload"]) == 65523
    with pytest.raises(WireError) as caught:
        rtp.parse(packet + bytes(65524))
    assert caught.value.code == NAMES["E_LENGTH"]


@given(
    st.integers(0, 127),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.lists(st.integers(0, 2**32 - 1), max_size=15),
    st.binary(max_size=64),
)
def test_what_aiortc_writes_is_read(payload_type, seq, rtp_ts, ssrc, marker, csrc, payload):
    packet = RtpPacket(payload_type, int(marker), seq, rtp_ts, ssrc, payload)
    packet.csrc = csrc
    found = rtp.parse(packet.serialize())
    assert (found["payload_type"], found["seq"], found["rtp_ts"], found["ssrc"]) == (payload_type, seq, rtp_ts, ssrc)
    assert (found["marker"], found["csrc_count"], found["payload"]) == (marker, len(csrc), payload)


@given(
    st.integers(0, 127),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.binary(max_size=64),
)
def test_what_we_write_is_read_by_aiortc(payload_type, seq, rtp_ts, ssrc, marker, payload):
    packet = RtpPacket.parse(rtp.write(payload_type, seq, rtp_ts, ssrc, marker=marker) + payload)
    assert (packet.payload_type, packet.sequence_number, packet.timestamp, packet.ssrc) == (
        payload_type,
        seq,
        rtp_ts,
        ssrc,
    )
    assert (packet.marker, packet.payload) == (marker, payload)


def test_flags_are_written():
    assert rtp.write(1, 2, 3, 4, x=True, p=True)[0] == 0xB0


@given(st.binary(max_size=128))
def test_any_bytes_are_a_packet_or_an_error_with_a_name(data):
    try:
        found = rtp.parse(data)
    except WireError as error:
        assert error.code in (NAMES["E_SHORT"], NAMES["E_VERSION"], NAMES["E_EXT_LEN"], NAMES["E_PADDING"])
    else:
        assert data.endswith(found["payload"] + data[len(data) - found["padding_bytes"] :])

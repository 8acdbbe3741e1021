"""RTCP: walk and readers against vectors and aiortc, builders against both, NACK packing over every wrap."""

import pytest
from aiortc.rtp import (
    RtcpByePacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
    pack_remb_fci,
)
from hypothesis import given
from hypothesis import strategies as st

from relaycore import rtcp
from relaycore.errs import NAMES, WireError
from tests.support import vectors
from tests.support.wrap import WRAP_STARTS

u8, u32 = st.integers(0, 255), st.integers(0, 2**32 - 1)
blocks = st.fixed_dictionaries(
    {
        "ssrc": u32,
        "fraction_lost": u8,
        "total_lost": st.integers(-(2**23), 2**23 - 1),
        "ext_highest_seq": u32,
        "jitter": u32,
        "last_sr": u32,
        "delay_since_sr": u32,
    }
)
sender_infos = st.fixed_dictionaries({"ntp": st.integers(0, 2**64 - 1), "rtp_ts": u32, "packets": u32, "octets": u32})


def walk(data):
    return [{key: value for key, value in packet.items() if key != "body"} for packet in rtcp.parse(data)]


@pytest.mark.parametrize("vector", vectors.good("rtcp"), ids=str)
def test_good_compound(vector):
    assert vectors.plain(walk(vector.data)) == vector.expect["packets"]


@pytest.mark.parametrize("vector", vectors.bad("rtcp"), ids=str)
def test_bad_compound(vector):
    with pytest.raises(WireError, match=f"^{vector.error}$"):
        rtcp.parse(vector.data)


@pytest.mark.parametrize("vector", vectors.good("rtcp"), ids=str)
def test_truncation_at_every_length_ends_the_walk(vector):
    ends = [0]
    while ends[-1] < len(vector.data):
        ends.append(ends[-1] + 4 * (1 + int.from_bytes(vector.data[ends[-1] + 2 : ends[-1] + 4], "big")))
    for length in range(len(vector.data)):
        if length in ends:
            rtcp.parse(vector.data[:length])
        else:
            with pytest.raises(WireError, match="^(E_SHORT|E_LENGTH)$"):
                rtcp.parse(vector.data[:length])


@pytest.mark.parametrize("vector", vectors.good("rtcp"), ids=str)
def test_readers_never_leave_a_shortened_packet(vector):
    # The walk believes the length field, so a packet cut to fewer words reaches the readers.
    for words in range((len(vector.data) - 4) // 4):
        cut = vector.data[:2] + words.to_bytes(2, "big") + vector.data[4 : 4 + 4 * words]
        try:
            found = rtcp.parse(cut)[0]
        except WireError as error:
            assert error.code == NAMES["E_PADDING"]
        else:
            assert len(found["body"]) <= 4 * words


@given(u32, sender_infos, st.lists(blocks, max_size=31))
def test_sender_reports_are_read_back_by_us_and_by_aiortc(ssrc, info, items):
    packet = rtcp.report(ssrc, info, items)
    assert walk(packet) == [{"type": 200, "count": len(items), "ssrc": ssrc, "sender_info": info, "blocks": items}]
    (other,) = RtcpPacket.parse(packet)
    assert isinstance(other, RtcpSrPacket)
    assert (other.ssrc, other.sender_info.ntp_timestamp, other.sender_info.octet_count) == (
        ssrc,
        info["ntp"],
        info["octets"],
    )
    assert [r.packets_lost for r in other.reports] == [item["total_lost"] for item in items]


@given(u32, st.lists(blocks, max_size=31))
def test_receiver_reports_are_read_back_by_us_and_by_aiortc(ssrc, items):
    packet = rtcp.report(ssrc, None, items)
    assert walk(packet) == [{"type": 201, "count": len(items), "ssrc": ssrc, "blocks": items}]
    (other,) = RtcpPacket.parse(packet)
    assert isinstance(other, RtcpRrPacket)
    assert [(r.ssrc, r.fraction_lost, r.highest_sequence, r.jitter, r.lsr, r.dlsr) for r in other.reports] == [
        (i["ssrc"], i["fraction_lost"], i["ext_highest_seq"], i["jitter"], i["last_sr"], i["delay_since_sr"])
        for i in items
    ]


@pytest.mark.parametrize(("lost", "written"), [(2**23, 2**23 - 1), (2**31 - 1, 2**23 - 1), (-(2**23) - 1, -(2**23))])
def test_the_loss_field_clamps(lost, written):
    block = dict.fromkeys(("ssrc", "fraction_lost", "ext_highest_seq", "jitter", "last_sr", "delay_since_sr"), 0)
    packet = rtcp.report(1, None, [block | {"total_lost": lost}])
    assert walk(packet)[0]["blocks"][0]["total_lost"] == written


def test_more_blocks_than_five_bits_count_are_refused():
    block = dict.fromkeys(
        ("ssrc", "fraction_lost", "total_lost", "ext_highest_seq", "jitter", "last_sr", "delay_since_sr"), 0
    )
    for info in (None, {"ntp": 0, "rtp_ts": 0, "packets": 0, "octets": 0}):
        with pytest.raises(WireError, match="^E_INVALID$"):
            rtcp.report(1, info, [block] * 32)


def covered(nacks):
    numbers = []
    for _, pid, blp in nacks:
        numbers.append(pid)
        numbers += [(pid + 1 + bit) % 65536 for bit in range(16) if blp >> bit & 1]
    return numbers


@pytest.mark.parametrize("start", WRAP_STARTS)
@pytest.mark.parametrize(
    "offsets", [[0], [0, 1], [0, 16], [0, 17], [0, 1, 2, 16, 17, 33, 34, 51, 200], list(range(40)), [0, 0, 1, 1]]
)
def test_nacks_are_packed_over_the_wrap(start, offsets):
    seqs = [(start + offset) % 65536 for offset in offsets]
    (packet,) = walk(rtcp.build("nack", 1, media_ssrc=2, seqs=seqs))
    assert covered(packet["nacks"]) == list(dict.fromkeys(seqs))
    # As few items as the format allows: each reaches 16 numbers beyond its PID.
    fewest, reach = 0, -1
    for offset in offsets:
        if offset > reach:
            fewest, reach = fewest + 1, offset + 16
    assert len(packet["nacks"]) == fewest


@given(st.integers(0, 65535), st.sets(st.integers(0, 3000), min_size=1, max_size=60))
def test_every_nacked_number_reaches_aiortc(start, offsets):
    seqs = [(start + offset) % 65536 for offset in sorted(offsets)]
    (packet,) = RtcpPacket.parse(rtcp.build("nack", 1, media_ssrc=2, seqs=seqs))
    assert isinstance(packet, RtcpRtpfbPacket)
    assert (packet.ssrc, packet.media_ssrc, packet.lost) == (1, 2, seqs)


def test_no_numbers_make_no_nack():
    assert rtcp.build("nack", 1, media_ssrc=2, seqs=[]) == b""


@given(u32, u32, u8)
def test_keyframe_requests_and_bye(ssrc, media_ssrc, command_seq):
    compound = (
        rtcp.build("pli", ssrc, media_ssrc=media_ssrc)
        + rtcp.build("fir", ssrc, media_ssrc=media_ssrc, command_seq=command_seq)
        + rtcp.build("bye", ssrc)
    )
    assert walk(compound) == [
        {"type": 206, "count": 1, "ssrc": ssrc, "pli": media_ssrc},
        {"type": 206, "count": 4, "ssrc": ssrc, "firs": [(media_ssrc, command_seq)]},
        {"type": 203, "count": 1, "ssrc": ssrc},
    ]
    pli, fir, bye = RtcpPacket.parse(compound)
    assert isinstance(pli, RtcpPsfbPacket) and (pli.fmt, pli.media_ssrc) == (1, media_ssrc)
    assert isinstance(fir, RtcpPsfbPacket) and fir.fci == media_ssrc.to_bytes(4, "big") + bytes([command_seq, 0, 0, 0])
    assert isinstance(bye, RtcpByePacket) and bye.sources == [ssrc]


@given(u32, st.text("abcXYZ0-+/", max_size=255))
def test_cname_of_any_length_is_read_back_by_us_and_by_aiortc(ssrc, text):
    packet = rtcp.build("cname", ssrc, text=text.encode())
    assert rtcp.cname(packet, ssrc) == text.encode()
    (other,) = RtcpPacket.parse(packet)
    assert isinstance(other, RtcpSdesPacket)
    assert [(chunk.ssrc, chunk.items) for chunk in other.chunks] == [(ssrc, [(1, text.encode())])]


def test_the_cname_is_that_of_the_ssrc_asked_for():
    (two_chunks,) = [vector.data for vector in vectors.good("rtcp") if vector.name == "sdes-of-two-chunks"]
    assert rtcp.cname(two_chunks, 0x11) == b"xyz"
    with pytest.raises(WireError, match="^E_FORMAT$"):
        rtcp.cname(two_chunks, 0x12)
    with pytest.raises(WireError, match="^E_FORMAT$"):
        rtcp.cname(rtcp.build("bye", 0x11), 0x11)


@pytest.mark.parametrize(
    "body",
    ["00000011" + "01086162", "00000011" + "01020000", "00000011" + "61616161", "00000011" + "0102616200", "000000"],
    ids=["item beyond the packet", "item ends the packet", "no end", "no second chunk", "no whole SSRC"],
)
def test_sdes_that_overruns_is_refused(body):
    data = bytes.fromhex(body)
    padding = -len(data) % 4
    data += bytes(padding)
    if padding:
        data = data[:-1] + bytes([padding])
    packet = bytes([0x82 | (0x20 if padding else 0), 202]) + (len(data) // 4).to_bytes(2, "big") + data
    with pytest.raises(WireError, match="^E_LENGTH$"):
        rtcp.cname(packet, 0x99)


@given(st.integers(0, 2**40), st.lists(u32, max_size=4))
def test_remb_of_aiortc_is_read_to_its_precision(bitrate_bps, ssrcs):
    fci = pack_remb_fci(bitrate_bps, ssrcs)
    (packet,) = walk(bytes(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=fci)))
    assert packet["remb_bps"] <= bitrate_bps < packet["remb_bps"] * (1 + 2**-16) + 1


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("cname", {"text": b"abc"}),
        ("cname", {"text": b"abcd"}),
        ("bye", {}),
        ("nack", {"seqs": [1, 100, 200]}),
        ("pli", {}),
        ("fir", {}),
    ],
)
def test_builders_write_a_whole_packet_or_nothing(kind, arguments):
    packet = rtcp.build(kind, 1, **arguments)
    assert rtcp.build(kind, 1, **arguments, cap=len(packet)) == packet
    for cap in range(len(packet)):
        with pytest.raises(WireError, match="^E_NO_SPACE$"):
            rtcp.build(kind, 1, **arguments, cap=cap)


@pytest.mark.parametrize("info", [None, {"ntp": 1, "rtp_ts": 2, "packets": 3, "octets": 4}])
def test_reports_are_written_whole_or_not_at_all(info):
    block = dict.fromkeys(
        ("ssrc", "fraction_lost", "total_lost", "ext_highest_seq", "jitter", "last_sr", "delay_since_sr"), 0
    )
    packet = rtcp.report(1, info, [block])
    for cap in range(len(packet)):
        with pytest.raises(WireError, match="^E_NO_SPACE$"):
            rtcp.report(1, info, [block], cap)


@given(st.binary(max_size=96))
def test_any_bytes_are_walked_or_refused_by_name(data):
    try:
        rtcp.parse(data)
    except WireError as error:
        assert error.code in (NAMES["E_SHORT"], NAMES["E_VERSION"], NAMES["E_LENGTH"], NAMES["E_PADDING"])

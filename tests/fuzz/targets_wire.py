"""Fuzz targets of the wire formats: no bytes crash a parser, and what one end writes the other end reads."""

import socket
import struct

from relay.session.binding import local_ufrag
from relaycore import demux, hdrext, rtcp, rtp, stun
from relaycore.icelite import IceFace
from relaycore.tcp import TcpFace
from relaycore.twcc import TwccFace
from relaycore.twccread import read_feedback as read_in_the_relay
from tests.support import vectors
from tests.support.feedback import read_feedback

PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
EXTENSION_IDS = {1: 1, 2: 2, 4: 3, 6: 14, 7: 15, 15: 200}
TICK_NS = 250_000


def _vectors(topic: str) -> list[bytes]:
    return [vector.data for vector in vectors.load(topic)]


def seeds_demux() -> list[bytes]:
    return [data for topic in ("stun", "rtp", "rtcp") for data in _vectors(topic)]


def fuzz_demux(data: bytes) -> str:
    kind = demux.kind(data)
    if kind == "rtp":
        rtp.parse(data)
    elif kind == "rtcp":
        rtcp.parse(data)
    elif kind == "stun":
        stun.parse(data)
    return kind


def seeds_rtp() -> list[bytes]:
    return _vectors("rtp")


def fuzz_rtp(data: bytes) -> tuple[int, int, bool]:
    found = rtp.parse(data)
    header_bytes = len(data) - len(found["payload"]) - found["padding_bytes"]
    extension_bytes = 4 + len(found["extension"]) if data[0] & 0x10 else 0
    assert header_bytes == 12 + 4 * found["csrc_count"] + extension_bytes
    assert data[header_bytes : header_bytes + len(found["payload"])] == found["payload"]
    hdrext.parse(found["extension"], found["ext_profile"], EXTENSION_IDS)
    return found["csrc_count"], found["ext_profile"], found["padding_bytes"] > 0


def seeds_hdrext() -> list[bytes]:
    return _vectors("hdrext")


def fuzz_hdrext(data: bytes) -> tuple[int, ...]:
    elements = hdrext.parse(data[2:], int.from_bytes(data[:2], "big"), EXTENSION_IDS)
    block = hdrext.write(elements, EXTENSION_IDS, 8192)
    if elements:
        assert hdrext.parse(block[4:], int.from_bytes(block[:2], "big"), EXTENSION_IDS) == elements
    return tuple(elements)


def seeds_rtcp() -> list[bytes]:
    return _vectors("rtcp")


def fuzz_rtcp(data: bytes) -> tuple[tuple[int, int], ...]:
    packets = rtcp.parse(data)
    for packet in packets:
        for block in packet.get("blocks", ()):
            again = rtcp.parse(rtcp.report(packet["ssrc"], None, [block]))
            assert again[0]["blocks"] == [block]
        if "sender_info" in packet:
            again = rtcp.parse(rtcp.report(packet["ssrc"], packet["sender_info"], []))
            assert again[0]["sender_info"] == packet["sender_info"]
        if "cname" in packet:
            assert (
                rtcp.cname(rtcp.build("cname", packet["ssrc"], text=packet["cname"]), packet["ssrc"]) == packet["cname"]
            )
    return tuple((packet["type"], packet["count"]) for packet in packets)


def seeds_cname() -> list[bytes]:
    return [data for data in _vectors("rtcp") if data[1:2] == b"\xca"] + [
        rtcp.build("cname", 0x11, text=b"a" * n) for n in range(5)
    ]


def fuzz_cname(data: bytes) -> int:
    return len(rtcp.cname(data, 0x11))


def seeds_nack() -> list[bytes]:
    return [bytes.fromhex("fffe" + "ffff" + "0000" + "0011" + "00ff"), bytes(2), bytes(range(100))]


def fuzz_nack(data: bytes) -> int:
    """The numbers of any list, in any order, come out again; ascending lists come out in order."""
    seqs = [int.from_bytes(data[i : i + 2], "big") for i in range(0, min(len(data), 512) - 1, 2)]
    packet = rtcp.build("nack", 1, media_ssrc=2, seqs=seqs)
    if not seqs:
        assert packet == b""
        return 0
    (found,) = rtcp.parse(packet)
    told = set()
    for _, pid, blp in found["nacks"]:
        told |= {pid} | {(pid + 1 + bit) & 0xFFFF for bit in range(16) if blp >> bit & 1}
    assert told == set(seqs)
    return len(found["nacks"])


def seeds_stun() -> list[bytes]:
    return _vectors("stun")


def fuzz_stun(data: bytes) -> tuple[object, ...]:
    found = stun.parse(data)
    is_authentic = stun.is_authentic(data, PASSWORD)
    assert not is_authentic or found["integrity_offset"]
    for code in (400, 420, 487):
        answer = stun.error(data, code, PASSWORD)
        assert answer[8:20] == found["transaction_id"] and len(answer) == 20 + int.from_bytes(answer[2:4], "big")
    return (
        is_authentic,
        found["role"],
        found["use_candidate"],
        len(found["unknown_required"]),
        found["username"] is None,
    )


def seeds_feedback() -> list[bytes]:
    face, now_ns, found = TwccFace(), 10**9, []
    for number in range(65_500, 65_700):
        now_ns += (number % 9) ** 5 * 10_000
        if number % 7:
            face.record(number & 0xFFFF, now_ns)
        if number % 60 == 0:
            found.append(face.write_feedback())
    return found


def fuzz_feedback(data: bytes) -> int:
    """What the relay reads of a subscriber's report is what an independent reader reads, where that reads it at all."""
    found = read_in_the_relay(data)
    assert 0 < len(found) <= 4096
    try:
        wanted = read_feedback(data)
    except (ValueError, struct.error):
        return -len(found)
    arrived = tuple((number, at // TICK_NS & 0xFFFFFFFF) for number, at in found if at is not None)
    assert (len(found), arrived) == (wanted.count, wanted.arrivals)
    return len(arrived)


def seeds_twcc() -> list[bytes]:
    steady = bytes([1, 4]) * 40
    return [steady, steady + bytes([0xFF, 0]) + steady, bytes([10, 255, 246, 1, 2, 3, 128, 9]), bytes([127, 255]) * 30]


def fuzz_twcc(data: bytes) -> int:
    """Pairs of bytes are steps of number and time; a step of 128 in the number asks for feedback."""
    face = TwccFace()
    number, now_ns = 65500, 10**9
    recorded: dict[int, int] = {}
    told: dict[int, int] = {}
    packets = 0

    def drain() -> int:
        count = 0
        while packet := face.write_feedback(cap=28 + 4 * (len(data) % 64)):
            told.update(read_feedback(packet).arrivals)
            count += 1
            assert count < 4096
        return count

    for step, wait in zip(data[:4096:2], data[1:4096:2], strict=False):
        if step == 128:
            packets += drain()
            continue
        number = (number + (step if step < 128 else step - 256)) % 65536
        now_ns += wait**4 if wait & 1 else wait * 100_000
        face.record(number, now_ns)
        recorded.setdefault(number, now_ns // TICK_NS % 2**32)
        if len(recorded) % 64 == 0:
            packets += drain()
    packets += drain()
    # Numbers further behind than the window stay untold; what is told is right.
    assert told.items() <= recorded.items()
    assert face.pending == 0
    return packets


def seeds_icelite() -> list[bytes]:
    return [bytes(range(60)), bytes([1, 5, 0x81, 10]) * 20, bytes([0x81, 1, 0x82, 60, 0x83, 90]) * 9]


def fuzz_icelite(data: bytes) -> tuple[int, int]:
    """Pairs of bytes: who checks (and whether with USE-CANDIDATE), and how long after the last step."""
    ice = IceFace(0)
    now_ns = moves = 0
    for who, wait in zip(data[::2], data[1::2], strict=False):
        now_ns += wait * 50_000_000
        before = ice.selected
        if who & 0x40:
            assert (ice.poll(now_ns) == 1) == (ice.selected != before)
        else:
            index, has_moved = ice.on_check(
                bytes([192, 0, 2, who & 15]), 5000, (who >> 2) & 3, bool(who & 0x80), now_ns
            )
            assert ice.selected in (before, index) and index < 8
            assert has_moved or ice.selected == before
        moves += ice.selected != before
        assert ice.selected < 0 or ice.selected in ice.nominated()
    return moves, len(ice.nominated())


def seeds_tcp_stream() -> list[bytes]:
    packets = [data for data in _vectors("stun") + _vectors("rtp") if len(data) < 1600]
    stream = b"".join(len(packet).to_bytes(2) + packet for packet in packets[:8])
    return [b"\x03" + stream, b"\xff" + stream, b"\x10\xff\xff" + bytes(3000), b"\x01\0\0\0\0\0\1a"]


def fuzz_tcp_stream(data: bytes) -> tuple[int, int]:
    """The first byte says how the rest is cut; the frames are those that a reading of the whole finds."""
    step, stream = 1 + 16 * data[0] if data else 1, data[1:]
    expected, at, too_long = [], 0, 0
    while at + 2 <= len(stream):
        length = int.from_bytes(stream[at : at + 2])
        too_long += length > 1600
        packet = stream[at + 2 : at + 2 + length]
        if 0 < length <= 1600 and len(packet) == length:
            expected.append(packet)
        at += 2 + length
    ours, far = socket.socketpair()
    with ours, far:
        face = TcpFace(ours.fileno(), stream[: step % 4096])
        found = face.take()
        for at in range(step % 4096, len(stream), step):
            far.sendall(stream[at : at + step])
            while face.read() > 0:
                found += face.take()
        assert found == expected
        assert face.counters()["too_long"] == too_long
        assert face.slots_used() == 0
    return len(found), too_long


def seeds_first_frame() -> list[bytes]:
    return _vectors("stun")


def fuzz_first_frame(data: bytes) -> bool:
    """A name that the acceptor finds is the one that the data plane's parser finds."""
    ufrag = local_ufrag(data)
    if ufrag is not None:
        try:
            username = stun.parse(data)["username"]
        except ValueError:
            # Attributes behind the name are the worker's to judge.
            return True
        assert username is None or username.partition(b":")[0] == ufrag.encode()
    return ufrag is not None

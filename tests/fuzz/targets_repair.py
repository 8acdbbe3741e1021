"""Fuzz targets of repair: the receive log under any order, and retransmissions of any content through an engine."""

import struct

from relaycore.keyframes import KeyframeFace
from relaycore.nack import NackFace
from relaycore.overload import OverloadFace
from tests.support.engine import MID, MS, RID, RRID, Bench, rtp, vp8_payload
from tests.support.peer import header_bytes

PLACES, TRIES, AGE_MS = 256, 10, 1_000


def seeds_receive_log() -> list[bytes]:
    return [b"\x01\x05\x00\x05\x41\x00\x05", bytes(range(64)), b"\x07\xff\x03" * 20]


def fuzz_receive_log(data: bytes) -> tuple[int, bool]:
    """Steps of three bytes: what happens, how far, and how much later. What is asked for is missing, and not too often."""
    log, now, number = NackFace(), 10_000 * MS, 65_500
    received: set[int] = set()
    asked: dict[int, int] = {}
    for what, far, later in zip(data[::3], data[1::3], data[2::3], strict=False):
        now += later * MS // 4
        if what & 3 == 3:
            cap = what >> 2
            wanted = log.collect(now, cap)
            assert len(wanted) <= cap and len(set(wanted)) == len(wanted)
            for seq in wanted:
                asked[seq] = asked.get(seq, 0) + 1
            assert not log.due_ns or log.due_ns > now or len(wanted) == cap
        else:
            step = far if what & 1 else -far
            ext_seq = max(0, number + step)
            number = max(number, ext_seq)
            log.received(ext_seq, now, bool(what & 2))
            received.add(ext_seq)
        missing = log.missing
        assert missing == sorted(set(missing)) and len(missing) <= PLACES
        assert not received & set(missing)
        assert not missing or missing[-1] < number
    assert all(times <= TRIES for times in asked.values())
    before = len(asked)
    for _ in range(400):
        now += 5 * MS
        log.collect(now, 256)
    assert log.missing == [] and log.due_ns == 0
    return before, log.take_gave_up()


def seeds_rtx() -> list[bytes]:
    return [struct.pack("!BBH", 1, 43, 102) + vp8_payload(False), b"\x01\x00\x66\x00", b"\0", b"\x03\xff\xff\x05abc", b"\x02\0\x65\x40" * 9]


def fuzz_rtx(data: bytes) -> tuple[int, int]:
    """Authentic packets on a repair stream: flags, length and payload each, the payload beginning with any number."""
    bench = Bench()
    bench.video()
    for seq in (100, 101, 104, 105):
        bench.publish(rtp(1, seq, ts=3_000 * seq, marker=True, extensions={MID: b"1", RID: b"q"}, payload=vp8_payload(seq == 100, seq)))
    repair_seq, at = 10, 0
    while at + 2 <= len(data) and repair_seq < 60:
        flags, size = data[at], data[at + 1]
        payload = data[at + 2 : at + 2 + size]
        at += 2 + size
        repair_seq += 1
        extensions = {MID: b"1", RRID: b"q"} if flags & 4 == 0 else None
        packet = rtp(2 if flags & 8 == 0 else 3, repair_seq, pt=97 if flags & 16 == 0 else 96, ts=flags, marker=bool(flags & 1),
                     extensions=extensions, payload=payload)
        if flags & 2:
            packet = bytes([packet[0] | 0x20]) + packet[1:]
        bench.publish(packet)
    bench.advance(20)
    out = [struct.unpack_from("!H", p, 2)[0] for p in bench.subscriber.rtp]
    assert len(set(out)) == len(out) and bench.subscriber.refused == 0
    assert all(header_bytes(p) <= len(p) for p in bench.subscriber.rtp)
    counters = bench.snapshot()["counters"]
    assert counters["rtx_received"] >= counters["rtx_recovered"] + counters["rtx_padding"] + counters["duplicates_dropped"]
    return counters["rtx_recovered"], counters["duplicates_dropped"]


def seeds_shedding() -> list[bytes]:
    return [bytes([0, 0, 1, 0, 16, 1, 8, 1, 0, 2]), bytes(range(40))]


def fuzz_shedding(data: bytes) -> tuple[int, int]:
    """Any lag and any frames: a frame's packets share one fate, what was shed in full comes back at a turn."""
    state, stream, keyframes = OverloadFace(50 * MS), OverloadFace(0), KeyframeFace()
    now, seq, frame, standing = 10_000 * MS, 0, 0, False
    fate: dict[int, int] = {}
    for what, lag in zip(data[::2], data[1::2], strict=False):
        now += (what >> 5) * 5 * MS
        state.feel(lag * 2 * MS, now)
        assert 0 <= state.level <= 2
        seq += 1
        if what & 1 or not fate:
            frame += 1
        verdict, turned = stream.judge(state.level, frame, seq, temporal_id=what >> 1 & 3, switch_up=bool(what & 8),
                                       keyframe=bool(what & 16))
        standing ^= turned
        assert (verdict == 2) == standing
        if frame in fate and fate[frame] == 2:
            assert verdict == 2
        fate[frame] = verdict
        keyframes.packet(frame, lag * 100, bool(what & 16))
        if what & 4:
            keyframes.requested()
        assert 500 * MS <= keyframes.pause_ns() <= 1_000 * MS and keyframes.spent_bytes >= 0
    return state.level, sum(verdict == 2 for verdict in fate.values())

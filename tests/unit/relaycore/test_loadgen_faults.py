"""Each way in which media can go wrong is reported as what it is, and as nothing else."""

import struct
import time
from collections.abc import Callable

import pytest

from relaycore.loadgen import EventKind, LoadGenerator
from tests.support.load_mirror import Mirror
from tests.support.peer import header_bytes

VP8 = ((96, "vp8", 90_000, 97),)
OPUS = ((111, "opus", 48_000, None),)
SSRC, RTX_SSRC = 0x1111, 0x2222
JUDGED = ("lost", "reordered", "duplicates", "late", "recovered", "given_up", "refused", "frames_incomplete", "frames_corrupt",
          "frames_out_of_order", "frames_duplicate", "frames_missing", "frames_skipped", "frames_undecodable")


def judge(media: Callable, *, kind: str = "video", rtx: bool = False, seconds: float = 0.6, verify_every: int = 1,
          **spec) -> tuple[dict[str, int], dict]:
    """Send through a mirror with a rule; return what the receiver counted of JUDGED (only what is not 0) and all statistics."""
    mirror = Mirror(media)
    load = LoadGenerator(1, drain="eager", sending=False, verify_every=verify_every)
    sender, receiver = (load.add_endpoint(*side.arguments) for side in (mirror.left, mirror.right))
    load.set_srtp(sender, *mirror.left.keys)
    load.set_srtp(receiver, *mirror.right.keys)
    if kind == "audio":
        load.add_sender(sender, "audio", SSRC, 111, **spec)
    else:
        options = dict(rtx_ssrc=RTX_SSRC, rtx_payload_type=97) if rtx else {}
        if kind == "video":
            options.update(fps=50, bitrate_bps=1_500_000)
        load.add_sender(sender, kind, SSRC, 96, **options, **spec)
    codecs = OPUS if kind == "audio" else VP8
    load.add_receiver(receiver, "audio" if kind == "audio" else "video", codecs, ssrc=SSRC, rtx_ssrc=RTX_SSRC if rtx else None, nack=rtx)
    try:
        with load:
            connected = 0
            until = time.monotonic() + 5
            while connected < 2 and time.monotonic() < until:
                connected += sum(event[0] == EventKind.ICE_CONNECTED for event in load.take_events())
                time.sleep(0.005)
            assert connected == 2
            load.set_sending(True)
            time.sleep(seconds)
            load.set_sending(False)
            time.sleep(0.15)
            found = load.stats()
    finally:
        mirror.close()
    row = found["receivers"][0]
    found["row"], found["sent"] = row, found["senders"][0]
    assert found["sent"]["frames"] > 10
    return {name: int(row[name]) for name in JUDGED if row[name]}, found


class OnPacket:
    """A rule that treats the nth packet of the primary stream (from 0) by `act`, everything else not at all."""

    def __init__(self, number: int, act: Callable[[bytes], list[bytes]]) -> None:
        self.number, self.act, self.count = number, act, -1

    def __call__(self, packet: bytes) -> list[bytes]:
        if struct.unpack_from("!I", packet, 8)[0] != SSRC:
            return [packet]
        self.count += 1
        return self.act(packet) if self.count == self.number else [packet]


def flip(packet: bytes, at: int) -> bytes:
    changed = bytearray(packet)
    changed[at] ^= 0x40
    return bytes(changed)


def number_of(packet: bytes) -> int:
    return struct.unpack_from("!H", packet, 2)[0]


def with_number(packet: bytes, number: int) -> bytes:
    return packet[:2] + struct.pack("!H", number & 0xFFFF) + packet[4:]


def test_an_honest_network_is_clean():
    wrong, found = judge(lambda packet: [packet])
    assert wrong == {}
    assert found["row"]["frames_complete"] == found["sent"]["frames"]
    assert found["row"]["packets"] == found["sent"]["packets"]
    wrong, found = judge(lambda packet: [packet], kind="audio")
    assert wrong == {} and found["row"]["frames_complete"] == found["sent"]["frames"]


# In an audio packet the payload begins at 12: TOC, magic 13, stream 17, number 21, length 25, reference 29, flags 33, time 37.
@pytest.mark.parametrize("at", [12, 13, 18, 23, 27, 30, 33, 40, 50, -9, -8, -1])
def test_one_changed_byte_anywhere_in_a_frame_is_corruption(at):
    wrong, found = judge(OnPacket(5, lambda packet: [flip(packet, at)]), kind="audio")
    assert wrong == {"frames_corrupt": 1}
    assert found["row"]["frames_complete"] == found["sent"]["frames"] - 1


@pytest.mark.parametrize("cut", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: p[:60]])
def test_a_frame_of_another_length_is_corruption(cut):
    wrong, _ = judge(OnPacket(5, lambda packet: [cut(packet)]), kind="audio")
    assert wrong == {"frames_corrupt": 1}


def test_corruption_in_the_middle_of_a_video_frame_breaks_what_builds_on_it_and_asks_for_a_keyframe():
    wrong, found = judge(OnPacket(40, lambda packet: [flip(packet, -30)]), seconds=1.0)
    # The request may be answered before the next frame.
    assert wrong["frames_corrupt"] == 1 and wrong.keys() <= {"frames_corrupt", "frames_undecodable"}
    assert found["row"]["plis_sent"] >= 1 and found["sent"]["plis"] >= 1
    assert found["row"]["keyframes"] >= 2
    assert found["row"]["frames_complete"] == found["sent"]["frames"] - 1


def test_a_datagram_that_comes_twice_is_a_duplicate_packet():
    # The same index twice: what SRTP's replay window refuses, so it is sent by hand.
    sent: list[bytes] = []

    def twice(packet: bytes) -> list[bytes]:
        sent.append(packet)
        return [packet]

    mirror = Mirror(twice)
    original = mirror.right.outgoing.protect
    copies: dict[int, bytes] = {}

    class Repeating:
        def protect(self, packet, header_bytes):
            done = original(packet, header_bytes=header_bytes)
            copies[len(copies)] = done
            if len(copies) == 8:
                mirror.right.socket.sendto(done, mirror.right.address)
            return done

        def protect_rtcp(self, packet):
            return session.protect_rtcp(packet)

    session, mirror.right.outgoing = mirror.right.outgoing, Repeating()
    load = LoadGenerator(1, drain="eager")
    sender, receiver = (load.add_endpoint(*side.arguments) for side in (mirror.left, mirror.right))
    load.set_srtp(sender, *mirror.left.keys)
    load.set_srtp(receiver, *mirror.right.keys)
    load.add_sender(sender, "audio", SSRC, 111)
    load.add_receiver(receiver, "audio", OPUS, ssrc=SSRC)
    with load:
        time.sleep(0.5)
        row = load.stats()["receivers"][0]
    mirror.close()
    assert len(copies) > 10
    assert {name: int(row[name]) for name in JUDGED if row[name]} == {"duplicates": 1}


def test_a_frame_that_comes_twice_under_new_numbers_is_a_duplicate_frame():
    shift = 0

    def rule(packet: bytes) -> list[bytes]:
        nonlocal shift
        rule.count += 1
        out = [with_number(packet, number_of(packet) + shift)]
        if rule.count == 6:
            shift = 1
            out.append(with_number(packet, number_of(packet) + 1))
        return out

    rule.count = 0
    wrong, found = judge(rule, kind="audio")
    assert wrong == {"frames_duplicate": 1}
    assert found["row"]["frames_complete"] == found["sent"]["frames"]


def test_two_frames_under_each_others_numbers_are_out_of_order():
    held: list[bytes] = []

    def rule(packet: bytes) -> list[bytes]:
        rule.count += 1
        if rule.count == 6:
            held.append(packet)
            return []
        if rule.count == 7:
            return [with_number(packet, number_of(held[0])), with_number(held[0], number_of(packet))]
        return [packet]

    rule.count = 0
    wrong, _ = judge(rule, kind="audio")
    assert wrong.pop("frames_out_of_order") == 1
    # The frame that came early left a gap in the frames' numbers that had none in the packets'.
    assert wrong in ({}, {"frames_skipped": 1})


def reorder(kind: str, **options) -> tuple[dict[str, int], dict]:
    held: list[bytes] = []

    def rule(packet: bytes) -> list[bytes]:
        rule.count += 1
        if rule.count == 6:
            held.append(packet)
            return []
        return [packet, held.pop()] if held else [packet]

    rule.count = 0
    return judge(rule, kind=kind, **options)


def test_packets_that_overtake_are_reordered_and_their_frames_right():
    for kind in ("audio", "video"):
        wrong, found = reorder(kind)
        assert wrong == {"reordered": 1}
        assert found["row"]["frames_complete"] == found["sent"]["frames"]


def test_a_lost_audio_packet_is_lost_and_its_frame_missing():
    wrong, found = judge(OnPacket(6, lambda packet: []), kind="audio")
    assert wrong == {"lost": 1, "frames_missing": 1}
    assert found["row"]["frames_complete"] == found["sent"]["frames"] - 1


def test_a_lost_video_packet_without_repair_freezes_until_a_keyframe():
    wrong, found = judge(OnPacket(40, lambda packet: []), seconds=1.2)
    assert wrong["lost"] == wrong["given_up"] == 1
    assert wrong["frames_missing"] == 1 and wrong.get("frames_incomplete", 1) == 1
    assert wrong.keys() <= {"lost", "given_up", "frames_missing", "frames_incomplete", "frames_undecodable"}
    assert found["row"]["plis_sent"] >= 1 and found["row"]["keyframes"] >= 2
    assert found["row"]["frames_complete"] == found["sent"]["frames"] - 1


def test_lost_packets_are_asked_for_and_recovered_by_rtx():
    class Lossy:
        count = 0

        def __call__(self, packet: bytes) -> list[bytes]:
            self.count += 1
            return [] if self.count % 10 == 5 else [packet]

    rule = Lossy()
    wrong, found = judge(rule, rtx=True, seconds=1.0)
    row, sent = found["row"], found["sent"]
    assert set(wrong) <= {"recovered", "lost", "reordered"} and wrong["recovered"] > 5
    # What was lost after the last packet had nobody to show the hole.
    assert wrong.get("lost", 0) <= 1
    assert row["nacks_sent"] >= row["recovered"] and sent["retransmitted"] >= row["recovered"]
    assert row["frames_complete"] >= sent["frames"] - 1


def test_what_never_comes_is_given_up_after_its_last_request():
    lost: set[int] = set()

    def rule(packet: bytes) -> list[bytes]:
        if struct.unpack_from("!I", packet, 8)[0] == RTX_SSRC:
            return []
        rule.count += 1
        if rule.count == 30:
            lost.add(number_of(packet))
            return []
        return [packet]

    rule.count = 0
    wrong, found = judge(rule, rtx=True, seconds=1.8)
    assert wrong["given_up"] == wrong["lost"] == 1
    assert 3 <= found["row"]["nacks_sent"] <= 10
    assert found["row"]["plis_sent"] >= 1
    assert found["row"]["freezes"] >= 1 and found["row"]["longest_freeze_ns"] > 150_000_000


def test_a_frame_left_out_with_closed_up_numbers_is_skipped_and_missed_by_the_next():
    shift = 0
    seen: list[int] = []

    def rule(packet: bytes) -> list[bytes]:
        nonlocal shift
        timestamp = struct.unpack_from("!I", packet, 4)[0]
        if timestamp not in seen:
            seen.append(timestamp)
        if len(seen) == 8:
            shift += 1
            return []
        return [with_number(packet, number_of(packet) - shift)]

    wrong, _ = judge(rule, seconds=1.0)
    assert wrong["frames_skipped"] == 1 and wrong.keys() <= {"frames_skipped", "frames_undecodable"}
    assert wrong["frames_undecodable"] >= 1


def test_unbuilt_upon_layers_may_be_left_out():
    """An SFU that thins a stream: the top layer goes, everything else decodes."""
    shift = 0

    def rule(packet: bytes) -> list[bytes]:
        nonlocal shift
        payload = packet[header_bytes(packet):]
        # The N bit of the VP8 descriptor: nothing builds on this frame.
        if payload[0] & 0x20:
            shift += 1
            return []
        return [with_number(packet, number_of(packet) - shift)]

    wrong, found = judge(rule, temporal_layers=3)
    assert wrong.keys() == {"frames_skipped"}
    assert abs(wrong["frames_skipped"] - found["sent"]["frames"] / 2) <= 1


def test_losses_are_counted_without_decryption_too():
    wrong, found = judge(OnPacket(40, lambda packet: []), verify_every=0, kind="burst", rate_pps=400)
    assert wrong["lost"] == 1 and found["row"]["verified"] == 0
    assert wrong.keys() <= {"lost", "given_up"}

"""A publication's frame format in the engine: set once, judged on the way in, and stopped for everybody at once."""

import random
import struct

import pytest

from relaycore.exchange import WorkerExchange
from relaycore.frameseal import sframe_header
from relaycore.port import EventKind
from relaycore.sansio import SansIoEngine
from tests.support.engine import MS, OPUS, PUBLISHER, SUBSCRIBER, VP8, Bench, rtp
from tests.support.marks import cipher

E_STATE, E_INVALID, E_UNKNOWN_STREAM = -18, -19, -16
RNG = random.Random(12)


def opaque_audio(frame_format: str = "livekit_gcm") -> Bench:
    bench = Bench()
    bench.ok("add_receiver", 1, 10, False, "0", OPUS, (), (7,))
    bench.ok("set_frame_format", 10, frame_format)
    bench.ok("add_egress", 2, 20, 10, 0x77, None, "5", OPUS, "cname", 0)
    return bench


def send_audio(bench: Bench, numbers: range, payload) -> int:
    """Publish these packets; return how many the subscriber got."""
    before = len(bench.subscriber.rtp)
    for n in numbers:
        bench.publish(rtp(7, n, pt=111, ts=960 * n, payload=payload(n)))
    return len(bench.subscriber.rtp) - before


def clear(n: int) -> bytes:
    return b"\x78" + RNG.randbytes(60)


def sealed(n: int) -> bytes:
    return cipher("livekit_gcm", "opus", ssrc=7, counter=n).seal(b"\x78" + RNG.randbytes(60), rtp_ts=960 * n)


def ask_again(bench: Bench, numbers: list[int]) -> None:
    items = b"".join(struct.pack("!HH", number, 0) for number in numbers)
    packet = struct.pack("!BBHII", 0x81, 205, 2 + len(items) // 4, 0x4242, 0x88) + items
    bench.receive(bench.subscriber.protect_rtcp(packet), SUBSCRIBER)


# --- the format -----------------------------------------------------------------------------------------------------


def test_a_format_is_set_once_and_before_the_first_egress():
    bench = Bench()
    assert bench.command("set_frame_format", 10, "sframe") == E_UNKNOWN_STREAM
    bench.ok("add_receiver", 1, 10, False, "0", OPUS, (), (7,))
    assert bench.command("announce_keys", 10, 0, 0) == E_STATE
    bench.ok("set_frame_format", 10, "sframe")
    bench.ok("set_frame_format", 10, "sframe")
    for other in ("clear", "livekit_gcm"):
        assert bench.command("set_frame_format", 10, other) == E_STATE
    bench.ok("announce_keys", 10, 0, 0)
    bench.ok("add_receiver", 1, 11, True, "1", VP8)
    bench.ok("add_egress", 2, 21, 11, 0x88, None, "6", VP8, "cname", 0)
    assert bench.command("set_frame_format", 11, "livekit_gcm") == E_STATE
    with pytest.raises(ValueError, match="frame format"):
        bench.engine.set_frame_format(10, "none")
    with pytest.raises(ValueError, match="key ids"):
        bench.engine.announce_keys(10, 3, 2)


def test_a_mirror_has_no_format_and_an_exported_receiver_gets_none_any_more():
    exchange = WorkerExchange(2)
    engines = [SansIoEngine(seed=i, slots=256, exchange=exchange, index=i) for i in range(2)]

    def answer(engine, name, *arguments):
        number = getattr(engine, name)(*arguments)
        engine.poll(1)
        return next(e[2] for e in engine.take_events() if e[:2] == (EventKind.ACK, number))

    assert answer(engines[0], "add_transport", 1, "ufrag", "p" * 24) == 0
    assert answer(engines[0], "add_receiver", 1, 10, False, "0", OPUS) == 0
    assert answer(engines[1], "add_mirror", 10, 0, False, 1) == 0
    assert answer(engines[1], "set_frame_format", 10, "livekit_gcm") == E_INVALID
    assert answer(engines[0], "add_export", 10, 1) == 0
    assert answer(engines[0], "set_frame_format", 10, "livekit_gcm") == E_STATE


# --- stopped --------------------------------------------------------------------------------------------------------


def test_clear_frames_of_an_opaque_publication_stop_it():
    bench = opaque_audio()
    assert send_audio(bench, range(50), sealed) == 50
    assert send_audio(bench, range(50, 100), clear) == 7
    assert bench.taken(EventKind.RECEIVER_STOPPED) == [(EventKind.RECEIVER_STOPPED, 10, "unmarked")]
    # For good, whatever comes.
    assert send_audio(bench, range(100, 150), sealed) == 0
    counters = bench.snapshot()["counters"]
    assert (counters["frames_judged"], counters["frames_marked"], counters["frames_unmarked"]) == (58, 50, 8)
    assert (counters["receivers_stopped"], counters["stopped_dropped"]) == (1, 92)
    assert len(bench.taken(EventKind.RECEIVER_STOPPED)) == 1


def test_what_waits_in_a_queue_is_not_sent_after_the_stop():
    bench = opaque_audio()
    packets = [rtp(7, n, pt=111, ts=960 * n, payload=clear(n)) for n in range(8)]
    for packet in packets:
        bench.engine.receive(bench.publisher.protect(packet), PUBLISHER, bench.now_ns)
    bench.poll()
    assert bench.taken(EventKind.RECEIVER_STOPPED)
    assert bench.subscriber.rtp == []


def test_without_a_format_nothing_is_judged():
    bench = Bench()
    bench.audio()
    assert send_audio(bench, range(100), clear) == 100
    counters = bench.snapshot()["counters"]
    assert counters["frames_judged"] == counters["frames_parsed"] == 0


def video_packet(n: int, *, mark: bool, rtx: bool = False) -> bytes:
    frame = b"\x10" if n == 0 else b"\x11"
    payload = b"\x10" + frame + bytes(60) + (struct.pack("!IIIBB", 9, 3000 * n, n, 12, 0) if mark else b"")
    if rtx:
        return rtp(10, 500 + n, pt=97, ts=3000 * n, marker=True, payload=n.to_bytes(2, "big") + payload)
    return rtp(9, n, pt=96, ts=3000 * n, marker=True, payload=payload)


def opaque_video() -> Bench:
    bench = Bench()
    bench.ok("add_receiver", 1, 11, True, "1", VP8, (), (9,), (10,))
    bench.ok("set_frame_format", 11, "livekit_gcm")
    bench.ok("add_egress", 2, 21, 11, 0x88, 0x89, "6", VP8, "cname", 0)
    return bench


def test_nothing_of_a_stopped_publication_is_sent_again():
    bench = opaque_video()
    for n in range(30):
        bench.publish(video_packet(n, mark=True))
    numbers = [struct.unpack_from("!H", p, 2)[0] for p in bench.subscriber.rtp]
    assert len(numbers) == 30
    ask_again(bench, numbers[-4:-2])
    bench.advance(30)
    assert bench.snapshot()["counters"]["rtx_sent"] == 2
    for n in range(30, 38):
        bench.publish(video_packet(n, mark=False))
    assert bench.taken(EventKind.RECEIVER_STOPPED)
    bench.advance(200)
    ask_again(bench, numbers[-8:-4])
    bench.advance(100)
    assert bench.snapshot()["counters"]["rtx_sent"] == 2


def test_repairs_are_not_judged():
    bench = opaque_video()
    for n in range(40):
        bench.publish(video_packet(n, mark=True))
    for n in range(41, 200, 2):
        # Each second frame comes as a repair only; marked wrongly, so that judging them would show.
        bench.publish(video_packet(n, mark=True))
        bench.publish(video_packet(n - 1, mark=False, rtx=True))
    counters = bench.snapshot()["counters"]
    assert counters["rtx_recovered"] == 80
    assert counters["frames_unmarked"] == counters["receivers_stopped"] == 0


def test_not_everything_may_come_as_a_repair():
    bench = opaque_video()
    for n in range(20):
        bench.publish(video_packet(n, mark=True))
    for n in range(20, 5000):
        # In order and without originals: all of it would reach the subscriber unjudged.
        bench.publish(video_packet(n, mark=False, rtx=True))
        bench.now_ns += 5 * MS
        if bench.taken(EventKind.RECEIVER_STOPPED):
            break
    assert n == 20 + 4095
    assert bench.snapshot()["counters"]["receivers_stopped"] == 1


def test_padding_and_empty_packets_are_not_judged():
    bench = opaque_audio()
    for n in range(60):
        bench.publish(rtp(7, n, pt=111, ts=960 * n, payload=sealed(n) if n % 3 == 0 else b""))
    assert bench.snapshot()["counters"]["frames_judged"] == 20
    assert not bench.taken(EventKind.RECEIVER_STOPPED)


# --- SFrame's keys --------------------------------------------------------------------------------------------------


def test_until_a_key_is_announced_packets_are_dropped_which_is_no_stop():
    bench = opaque_audio("sframe")

    def frame(n):
        return sframe_header(0, n) + RNG.randbytes(60)

    assert send_audio(bench, range(100), frame) == 0
    assert bench.snapshot()["counters"]["unannounced_dropped"] == 100
    bench.ok("announce_keys", 10, 0, 3)
    assert send_audio(bench, range(100, 150), frame) == 50
    counters = bench.snapshot()["counters"]
    assert (counters["frames_marked"], counters["receivers_stopped"]) == (50, 0)


# --- declared clear -------------------------------------------------------------------------------------------------


def test_encryption_that_was_not_declared_is_told_once_and_goes_on():
    bench = opaque_audio("clear")
    got = 0
    for n in range(400):
        got += send_audio(bench, range(n, n + 1), sealed)
        bench.advance(20)
    assert got == 400
    assert bench.taken(EventKind.UNDECLARED_ENCRYPTION) == [(EventKind.UNDECLARED_ENCRYPTION, 10)]
    assert bench.snapshot()["counters"]["undeclared_encryption"] == 1

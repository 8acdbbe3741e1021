"""One clock for all encodings a subscriber is shown: by reports, by capture times, else by arrival, put right slowly."""

import struct

from tests.support.engine import MID, RID, URIS, Bench, rtp, vp8_payload

CAPTURE = 9
FRAME_MS, FRAME_TICKS = 40, 3600
# Encoding -> its SSRC, its rid, and by how much its clock is ahead.
LOW, HIGH = (1, b"q", 0), (2, b"h", 777_777)
NTP_0 = 3_900_000_000


class Clock(Bench):
    """Two encodings of one camera; the other one's packets come `delay_ms` later."""

    def __init__(self, *, captures: bool = False) -> None:
        super().__init__()
        if captures:
            self.ok("set_extensions", 1, URIS | {"http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time": CAPTURE})
        self.captures = captures
        self.video()
        self.number = 0

    def ts(self, encoding, number: int) -> int:
        return number * FRAME_TICKS + encoding[2] & 0xFFFFFFFF

    def frame(self, encoding, number: int, key: bool = False) -> None:
        ssrc, rid, _ = encoding
        extensions = {MID: b"1", RID: rid}
        if self.captures:
            extensions[CAPTURE] = struct.pack("!Q", int((NTP_0 + number * FRAME_MS / 1e3) * 2**32))
        self.publish(rtp(ssrc, 1 + number, ts=self.ts(encoding, number), marker=True, extensions=extensions,
                         payload=vp8_payload(key, 1 + number)))

    def report(self, encoding, number: int) -> None:
        ntp = int((NTP_0 + number * FRAME_MS / 1e3) * 2**32)
        body = struct.pack("!BBHIQIII", 0x80, 200, 6, encoding[0], ntp, self.ts(encoding, number), 1, 1)
        self.receive(self.publisher.protect_rtcp(body))

    def run(self, encoding, frames: int, *, key: bool = False) -> None:
        for i in range(frames):
            self.frame(encoding, self.number, key and i == 0)
            self.number += 1
            self.advance(FRAME_MS)

    def switch_late(self, delay_ms: int) -> None:
        """Show the other encoding, whose packets take so much longer."""
        self.ok("select_encoding", 21, 1)
        self.advance(delay_ms)
        self.run(HIGH, 1, key=True)

    def times(self) -> list[int]:
        return [struct.unpack_from("!I", packet, 4)[0] for packet in self.subscriber.rtp]

    def error(self) -> int:
        """Ticks by which the newest picture is later than the first one's scale has it."""
        times = self.times()
        return times[-1] - times[0] - (self.number - 1) * FRAME_TICKS


def test_reports_of_both_place_the_new_one_to_the_tick():
    clock = Clock()
    clock.run(LOW, 5, key=True)
    clock.frame(HIGH, 4)
    clock.report(LOW, 4)
    clock.report(HIGH, 4)
    clock.switch_late(60)
    assert abs(clock.error()) <= 1


def test_capture_times_do_without_reports():
    clock = Clock(captures=True)
    clock.run(LOW, 5, key=True)
    clock.frame(HIGH, clock.number - 1)
    clock.switch_late(60)
    assert abs(clock.error()) <= 1


def test_arrival_is_a_guess_that_reports_put_right_without_a_step():
    clock = Clock()
    clock.run(LOW, 5, key=True)
    clock.switch_late(60)
    assert abs(clock.error() - 60 * 90) <= 10, "as late as it came"
    clock.report(LOW, 4)
    clock.report(HIGH, clock.number)
    before = len(clock.times())
    clock.run(HIGH, 25 * 70)
    steps = [b - a for a, b in zip(clock.times()[before:], clock.times()[before + 1 :])]
    assert min(steps) >= FRAME_TICKS - 4 and max(steps) <= FRAME_TICKS, "less than 1 ms/s"
    assert abs(clock.error()) <= 2


def test_without_reports_a_guess_stays():
    clock = Clock()
    clock.run(LOW, 5, key=True)
    clock.switch_late(60)
    clock.run(HIGH, 100)
    assert abs(clock.error() - 60 * 90) <= 10


def test_reports_to_the_subscriber_say_the_publishers_time_of_the_picture():
    clock = Clock()
    clock.run(LOW, 5, key=True)
    clock.frame(HIGH, 4)
    clock.report(LOW, 4)
    clock.report(HIGH, 4)
    clock.switch_late(60)
    clock.subscriber.rtcp.clear()
    clock.run(HIGH, 40)
    reports = [c for c in clock.subscriber.rtcp if c[1] == 200]
    assert reports
    ntp, ts = struct.unpack_from("!QI", reports[-1], 8)
    picture = (ntp / 2**32 - NTP_0) * 90_000
    assert abs(ts - clock.times()[0] - picture) < 90 * (FRAME_MS + 10), "the same clock as the pictures'"



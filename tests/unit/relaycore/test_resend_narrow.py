"""Repairs over a path that just became narrow, asked for as browsers ask."""

import struct

from tests.sim.link import Impairment
from tests.support.engine import MS, SUBSCRIBER
from tests.unit.relaycore.test_bandwidth import RTX_SSRC, SSRC, Path
from tests.unit.relaycore.test_engine_repair_egress import body, number

AGAIN_MS, TRIES = 100, 10
QUEUE_MS = 300


class Asking(Path):
    """A path whose subscriber asks for what is missing as Chromium does: at once, then every 100 ms, ten times at most."""

    def __init__(self, rate_bps: int, source_bps: int) -> None:
        self.read, self.highest, self.is_asking = 0, -1, False
        # By number: when to ask next, and how often it was asked for.
        self.missing: dict[int, tuple[int, int]] = {}
        self.given_up: list[int] = []
        super().__init__(rate_bps, source_bps)

    def narrow(self, rate_bps: int) -> None:
        self.link.impairment = Impairment(delay_s=0.025, rate_bps=rate_bps, queue_bytes=rate_bps * QUEUE_MS // 8000)

    def poll(self) -> None:
        super().poll()
        arrived, self.read = self.subscriber.rtp[self.read :], len(self.subscriber.rtp)
        for packet in arrived:
            ssrc = struct.unpack_from("!I", packet, 8)[0]
            if ssrc == RTX_SSRC and not packet[0] & 0x20:
                self.missing.pop(struct.unpack("!H", body(packet)[:2])[0], None)
            elif ssrc == SSRC:
                came = number(packet)
                for lost in range(self.highest + 1, came) if self.highest >= 0 else ():
                    self.missing[lost] = (self.now_ns, 0)
                self.highest = max(self.highest, came)
        due = [lost for lost, (at_ns, _) in self.missing.items() if at_ns <= self.now_ns]
        if due and not self.is_asking:
            self.is_asking = True
            self.ask(due)
            self.is_asking = False

    def ask(self, due: list[int]) -> None:
        for lost in due:
            tries = self.missing.pop(lost)[1]
            if tries == TRIES:
                self.given_up.append(lost)
            else:
                self.missing[lost] = (self.now_ns + AGAIN_MS * MS, tries + 1)
        items = b"".join(struct.pack("!HH", lost, 0) for lost in due if lost in self.missing)
        if items:
            nack = struct.pack("!BBHII", 0x81, 205, 2 + len(items) // 4, 0x4242, SSRC) + items
            self.receive(self.subscriber.protect_rtcp(nack), SUBSCRIBER)

    def repairs(self) -> list[int]:
        return [struct.unpack("!H", body(p)[:2])[0] for p in self.resent() if not p[0] & 0x20]


def test_what_is_lost_behind_a_keyframe_on_a_narrow_path_comes_once_and_in_time():
    path = Asking(3_000_000, 1_000_000)
    path.run(3)
    assert not path.repairs() and not path.missing
    path.narrow(400_000)
    path.run(0.6)
    path.keyframes.add(path.frame)
    path.source_bps, first = 1_500_000, path.seq
    path.run(1 / 30)
    path.source_bps = 220_000
    path.run(4)
    start = number(next(p for p in path.subscriber.rtp if struct.unpack_from("!I", p, 8)[0] == SSRC)) + first
    assert start < 1 << 16
    repairs = [n for n in path.repairs() if n >= start]
    assert len(set(repairs)) > 3, "the queue dropped nothing"
    assert len(repairs) < 1.3 * len(set(repairs)) and not [n for n in path.given_up if n >= start]

"""Non-interference (DESIGN section 5): what a payload holds outside the header view decides nothing but whether to stop.

A call runs once, and everything that went into the engine is written down; then other engines get the same schedule with
other bytes in its payloads. Every datagram out, its time, its receiver, every header, every RTCP packet, every event and
counter must be the same, and every payload out must be what went in instead of the one before.
  outside  all bytes outside header and mark view are replaced: nothing may differ
  marks    the mark view's are too, of all frames or of some: nothing may differ until a receiver is stopped, of which then
           nothing leaves any more

usage: python -m tests.sim.noninterference [--cases 10000] [--seed 1] [--no-shrink]
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from relaycore.port import EventKind
from relaycore.srtp import SrtpSession
from tests.sim.schedule import (
    OPUS_TAKEN,
    PUBLISHER,
    RENEWED,
    STEP_BYTES,
    VIDEO_EGRESSES,
    VIDEO_RECEIVER,
    Call,
    Case,
    Engines,
    Stop,
    Subscriber,
    replay,
)
from tests.sim.senders import PLAYOUT, RED_HEADER_BYTES, VIDEO, Sent
from tests.support.payload_views import Range, descriptor_bytes, header_view, replace_outside
from tests.support.peer import header_bytes

# What the probe found out about frames: an account of its own, which decides nothing but a stop.
PROBED = ("frames_judged", "frames_marked", "frames_unmarked", "frames_plain", "frames_parsed", "frames_unparsed",
          "undeclared_encryption")  # fmt: skip


class Interference(AssertionError):
    """Bytes that nobody may look at have changed something."""


def is_rtcp(datagram: bytes) -> bool:
    return 192 <= datagram[1] <= 223


MEDIA, RTX, VOICE = range(3)


def which(packet: bytes) -> int:
    """What a packet to a subscriber is, by its SSRC (Subscriber.ssrc)."""
    return struct.unpack_from("!I", packet, 8)[0] & 15


class Substitution:
    """Other bytes for a call's payloads, and what of the relay's output must become what."""

    def __init__(self, seed: int, what: str) -> None:
        self.rng, self.what = random.Random(seed ^ 0x5EED), what
        # Marks of all frames, or of about every other.
        self.spares_some = self.rng.getrandbits(1)
        self.pairs: dict[bytes, set[bytes]] = {}

    def kept(self, sent: Sent, payload: bytes) -> list[Range]:
        spares = self.what == "outside" or (self.spares_some and self.rng.getrandbits(1))
        headers = [(0, RED_HEADER_BYTES)] if sent.primary_at else header_view(sent.codec, payload)
        return headers + (sent.marks if spares else [])

    def __call__(self, sent: Sent) -> bytes:
        begin = sent.payload_at + sent.osn_bytes
        payload = sent.packet[begin : len(sent.packet) - sent.padding]
        other = replace_outside(payload, self._other(len(payload)), self.kept(sent, payload))
        at = descriptor_bytes(sent.codec, payload)
        self.pairs.setdefault(payload[at:], set()).add(other[at:])
        if sent.primary_at:
            # Whole, by the receivers' number of Opus.
            whole, both = bytes([0x80 | OPUS_TAKEN]), bytes([OPUS_TAKEN])
            one, two = (whole + p[1:4] + both + p[5:] for p in (payload, other))
            self.pairs.setdefault(one, set()).add(two)
            self.pairs.setdefault(payload[sent.primary_at :], set()).add(other[sent.primary_at :])
        padding = self._other(sent.padding - 1) + sent.packet[-1:] if sent.padding else b""
        return sent.packet[:begin] + other + padding

    def _other(self, count: int) -> bytes:
        way = self.rng.getrandbits(3)
        return bytes([0 if way == 0 else 0xFF]) * count if way < 2 else self.rng.randbytes(count)


class Judge:
    """Compares the second run with the first."""

    def __init__(self, call: Call, other: Engines, pairs: dict[bytes, set[bytes]], what: str = "outside") -> None:
        self.call, self.other, self.pairs, self.what = call, other, pairs, what
        self.by_address = {s.address: s for s in call.subscribers}
        self.sessions = {
            s.address: tuple(SrtpSession(s.peer.profile, s.peer.receive_key, s.peer.receive_salt) for _ in range(2))
            for s in call.subscribers
        }
        self.compared = 0

    def check(self) -> list[dict]:
        """Return the first run's figures."""
        first, second = self.call.run, self.other
        figures = first.figures(self.call.now_ns), second.figures(self.call.now_ns)
        ends = len(first.out)
        is_stopped = self.what == "marks" and second.stops != first.stops
        if is_stopped:
            ends = min(stop.after for stop in first.stops + second.stops)
            for stop in second.stops:
                self._stopped(stop)
        elif ends != len(second.out):
            raise Interference(f"{ends} datagrams became {len(second.out)}")
        for one, two in zip(first.out[:ends], second.out, strict=False):
            if one[:3] != two[:3]:
                raise Interference(f"{one[:3]} became {two[:3]}")
            if one[3] != two[3]:
                self._datagrams(one[2], one[3], two[3])
        if not is_stopped:
            if first.wakes != second.wakes:
                raise Interference("the relay wants to be woken at other times")
            self._figures(figures)
        return figures[0]

    def _figures(self, figures: tuple[list[dict], list[dict]]) -> None:
        events = [
            [event for event in run.events if event[1] != EventKind.UNDECLARED_ENCRYPTION]
            for run in (self.call.run, self.other)
        ]
        if events[0] != events[1]:
            raise Interference(f"events {events[0]} became {events[1]}")
        for one, two in zip(*figures, strict=True):
            if one != two:
                changed = {name: (value, two[name]) for name, value in one.items() if value != two[name]}
                counters = [{name: n for name, n in f["counters"].items() if name not in PROBED} for f in (one, two)]
                if set(changed) != {"counters"} or counters[0] != counters[1] or self._is_account_kept():
                    raise Interference(f"figures: {changed}")

    def _is_account_kept(self) -> bool:
        """Whether the probe must have found the same: it was shown the same."""
        return self.what == "outside" and self.call.case.frame_format != "clear"

    def _stopped(self, stop: Stop) -> None:
        """Nothing of a stopped receiver leaves any more, from any worker: no packet, no padding, no retransmission."""
        for _, _, address, datagram in self.other.out[stop.after :]:
            s = self.by_address.get(address)
            if s is None or datagram[0] >> 6 != 2 or is_rtcp(datagram):
                continue
            if which(datagram) in ((MEDIA, RTX) if stop.receiver == VIDEO_RECEIVER else (VOICE,)):
                raise Interference(f"receiver {stop.receiver} was stopped, and {datagram.hex()} left")

    def _datagrams(self, address: tuple[str, int], one: bytes, two: bytes) -> None:
        if address == PUBLISHER or len(one) != len(two) or one[0] >> 6 != 2 or is_rtcp(one):
            raise Interference(f"to {address}: {one.hex()} became {two.hex()}")
        at = header_bytes(one)
        if one[:at] != two[:at]:
            raise Interference(f"header to {address}: {one[:at].hex()} became {two[:at].hex()}")
        sessions = self.sessions[address]
        plain = sessions[0].unprotect(one, header_bytes=at), sessions[1].unprotect(two, header_bytes=at)
        if not all(isinstance(packet, bytes) for packet in plain):
            raise Interference(f"to {address}: unprotect says {plain}")
        self._payloads(self.by_address[address], plain[0], plain[1], at)

    def _payloads(self, s: Subscriber, one: bytes, two: bytes, at: int) -> None:
        self.compared += 1
        is_repair = which(one) == RTX
        payload_type = one[1] & 0x7F
        if one[0] & 0x20:
            padding = one[-1]
            if one[-padding:] != two[-padding:]:
                raise Interference("padding")
            one, two = one[:-padding], two[:-padding]
        if is_repair:
            if one[at : at + 2] != two[at : at + 2]:
                raise Interference("number of a retransmission")
            at += 2
            payload_type -= 1
        one, two = one[at:], two[at:]
        if not one:
            return
        skipped = descriptor_bytes(s.codecs[payload_type], one)
        if one[:skipped] != two[:skipped]:
            raise Interference(f"descriptor {one[:skipped].hex()} became {two[:skipped].hex()}")
        if two[skipped:] not in self.pairs.get(one[skipped:], ()):
            raise Interference(f"{one.hex()} became {two.hex()}, which is not what was sent")


# LiveKit has no format for AV1, packetisers read no SFrame in H264.
FORMATS = sorted(
    {(codec, "clear") for codec in VIDEO}
    | {(codec, "livekit_gcm") for codec in ("vp8", "vp9", "h264")}
    | {(codec, "sframe") for codec in ("vp8", "vp9", "av1")}
)


def _case(media: tuple[str, str], **fields) -> Case:
    return Case(codec=media[0], frame_format=media[1], **fields)


CASES = st.builds(
    _case,
    media=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**32 - 1),
    uses_dd=st.booleans(),
    shape=st.sampled_from(("simulcast", "simulcast", "svc", "single")),
    switches=st.integers(0, 31),
    steps=st.binary(min_size=24 * STEP_BYTES, max_size=44 * STEP_BYTES),
    has_red=st.booleans(),
)
WANTED_SHARES = {"switch": 0.2, "rtx": 0.2, "nack": 0.2, "loss": 0.2, "red": 0.2, "restart": 0.2, "mirrors removed": 0.1,
                 "cache": 0.1, "layers": 0.2}  # fmt: skip


def _extension_ids(datagram: bytes) -> set[int]:
    """The header extensions of an RTP packet in the one-byte form."""
    if datagram[0] >> 6 != 2 or is_rtcp(datagram) or datagram[12:14] != b"\xbe\xde":
        return set()
    found, at = set(), 16
    while at < header_bytes(datagram) and datagram[at]:
        found.add(datagram[at] >> 4)
        at += 2 + (datagram[at] & 15)
    return found


class Shares(Counter):
    """How many cases contained what."""

    def add(self, call: Call, figures: list[dict], compared: int) -> None:
        def any_of(name: str) -> bool:
            return any(f["counters"][name] for f in figures)

        shown: dict[int, int] = {}
        switched = False
        for event in call.run.events:
            if event[1] == EventKind.EGRESS_SWITCHED and event[2] % RENEWED in VIDEO_EGRESSES:
                switched |= shown.get(event[2], event[3]) != event[3]
                shown[event[2]] = event[3]
        counted = {
            "rtx up": "rtx_recovered", "rtx down": "rtx_sent", "nack up": "nacks_sent", "nack down": "nacks_received",
            "two workers": "exported", "levelling": "levelling_bytes", "padding": "padding_dropped", "twcc up": "feedback_sent",
            "twcc down": "transport_feedback_received", "keyframe asked": "keyframe_requests_sent", "cache": "cache_hits",
            "red stripped": "red_stripped",
        }  # fmt: skip
        found = {name: any_of(counter) for name, counter in counted.items()}
        found |= {
            "switch": switched,
            "loss": call.lost > 0,
            "red": call.reds > 0,
            "restart": call.restarts > 0,
            "layers": call.chosen_layers > 0,
            "mirrors removed": call.remade_mirrors > 0,
            "rtx": found["rtx up"] or found["rtx down"],
            "nack": found["nack up"] or found["nack down"],
            "shed": any_of("shed_layers") or any_of("shed_video"),
            "playout delay": any(PLAYOUT in _extension_ids(datagram) for _, _, _, datagram in call.run.out),
        }
        self.update(name for name, is_there in found.items() if is_there)
        self["cases"] += 1
        self["packets in"] += len(call.protected)
        self["payloads compared"] += compared

    def share(self, name: str) -> float:
        return self[name] / self["cases"]

    def missing(self) -> list[str]:
        """What the cases should have contained, and what they should not: a stop of a publication that bears its marks."""
        false_stops = [f"{self['stopped at first']} false stops"] * bool(self["stopped at first"])
        return false_stops + [
            f"{name}: {self.share(name):.0%}" for name, wanted in WANTED_SHARES.items() if self.share(name) < wanted
        ]

    def __str__(self) -> str:
        counts = ("cases", "packets in", "payloads compared")
        return ", ".join([f"{self[name]:,} {name}" for name in counts]
                         + [f"{name} {self.share(name):.0%}" for name in sorted(self) if name not in counts])  # fmt: skip


def judge(case: Case, what: str, shares: Shares) -> None:
    """Run a case twice; Interference when the second run shows that somebody looked."""
    call = Call(case)
    call.play()
    substitution = Substitution(case.seed, what)
    other = replay(call, substitution)
    judged = Judge(call, other, substitution.pairs, what)
    figures = judged.check()
    shares.add(call, figures, judged.compared)
    shares["opaque"] += case.frame_format != "clear"
    shares["stopped at first"] += bool(call.run.stops)
    shares["stopped"] += bool(other.stops)


def run(what: str, cases: int, *, number: int = 1, shrinks: bool = True) -> Shares:
    """Judge so many cases of replacing "outside" or "marks"; the first Interference is raised, shrunk if wanted."""
    shares = Shares()

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
    )
    @given(CASES)
    def property(case: Case) -> None:
        judge(case, what, shares)

    property()
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description="bytes that nobody may look at, replaced")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    for what in ("outside", "marks"):
        began_s = time.monotonic()
        try:
            shares = run(what, options.cases, number=options.seed, shrinks=not options.no_shrink)
        except Interference as found:
            print(f"Interference ({what}): {found}", *getattr(found, "__notes__", ()), sep="\n")
            sys.exit(1)
        took_s = time.monotonic() - began_s
        print(f"{what}: {shares}\n{took_s:.0f} s, {took_s / shares['cases'] * 1e3:.1f} ms per case", flush=True)
        if shares.missing():
            print("not as wanted:", *shares.missing())
            sys.exit(1)


if __name__ == "__main__":
    main()

"""Non-interference (DESIGN section 5): what a payload holds outside the header view decides nothing.

A call runs once, and everything that went into the engine is written down; then other engines get the same schedule with
the payloads' other bytes replaced. Every datagram out, its time, its receiver, every header, every RTCP packet, every event
and counter must be the same, and every payload out must be what went in instead of the one before.

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
from tests.sim.schedule import PUBLISHER, STEP_BYTES, VIDEO_EGRESSES, Call, Case, Engines, Subscriber, replay
from tests.sim.senders import VIDEO, Sent
from tests.support.payload_views import Range, descriptor_bytes, header_view, replace_outside
from tests.support.peer import header_bytes


class Interference(AssertionError):
    """Bytes that nobody may look at have changed something."""


def is_rtcp(datagram: bytes) -> bool:
    return 192 <= datagram[1] <= 223


class Substitution:
    """Other bytes for a call's payloads, and what of the relay's output must become what."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed ^ 0x5EED)
        self.pairs: dict[bytes, set[bytes]] = {}

    def kept(self, sent: Sent, payload: bytes) -> list[Range]:
        return header_view(sent.codec, payload)

    def __call__(self, sent: Sent) -> bytes:
        begin = sent.payload_at + sent.osn_bytes
        payload = sent.packet[begin : len(sent.packet) - sent.padding]
        other = replace_outside(payload, self._other(len(payload)), self.kept(sent, payload))
        at = descriptor_bytes(sent.codec, payload)
        self.pairs.setdefault(payload[at:], set()).add(other[at:])
        padding = self._other(sent.padding - 1) + sent.packet[-1:] if sent.padding else b""
        return sent.packet[:begin] + other + padding

    def _other(self, count: int) -> bytes:
        way = self.rng.getrandbits(3)
        return bytes([0 if way == 0 else 0xFF]) * count if way < 2 else self.rng.randbytes(count)


class Judge:
    """Compares the second run with the first."""

    def __init__(self, call: Call, other: Engines, pairs: dict[bytes, set[bytes]]) -> None:
        self.call, self.other, self.pairs = call, other, pairs
        self.by_address = {s.address: s for s in call.subscribers}
        self.sessions = {
            s.address: tuple(SrtpSession(s.peer.profile, s.peer.receive_key, s.peer.receive_salt) for _ in range(2))
            for s in call.subscribers
        }
        self.compared = 0

    def check(self) -> list[dict]:
        """Return the first run's figures."""
        first, second = self.call.run, self.other
        for one, two in zip(first.out, second.out, strict=False):
            if one[:3] != two[:3]:
                raise Interference(f"{one[:3]} became {two[:3]}")
            if one[3] != two[3]:
                self._datagrams(one[2], one[3], two[3])
        if len(first.out) != len(second.out):
            raise Interference(f"{len(first.out)} datagrams became {len(second.out)}")
        figures = first.figures(self.call.now_ns), second.figures(self.call.now_ns)
        if first.events != second.events:
            raise Interference(f"events {first.events} became {second.events}")
        for one, two in zip(*figures, strict=True):
            if one != two:
                changed = {name: (value, two[name]) for name, value in one.items() if value != two[name]}
                raise Interference(f"figures: {changed}")
        return figures[0]

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
        ssrc = struct.unpack_from("!I", one, 8)[0]
        payload_type = one[1] & 0x7F
        if one[0] & 0x20:
            padding = one[-1]
            if one[-padding:] != two[-padding:]:
                raise Interference("padding")
            one, two = one[:-padding], two[:-padding]
        if ssrc == s.ssrc + 1:
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


CASES = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 1),
    codec=st.sampled_from(sorted(VIDEO)),
    uses_dd=st.booleans(),
    shape=st.sampled_from(("simulcast", "simulcast", "svc", "single")),
    switches=st.integers(0, 31),
    steps=st.binary(min_size=24 * STEP_BYTES, max_size=44 * STEP_BYTES),
)
WANTED_SHARES = {"switch": 0.2, "rtx": 0.2, "nack": 0.2, "loss": 0.2}


class Shares(Counter):
    """How many cases contained what."""

    def add(self, call: Call, figures: list[dict], compared: int) -> None:
        def any_of(name: str) -> bool:
            return any(f["counters"][name] for f in figures)

        shown: dict[int, int] = {}
        switched = False
        for event in call.run.events:
            if event[1] == EventKind.EGRESS_SWITCHED and event[2] in VIDEO_EGRESSES:
                switched |= shown.get(event[2], event[3]) != event[3]
                shown[event[2]] = event[3]
        found = {
            "switch": switched, "loss": call.lost > 0, "rtx": any_of("rtx_sent") or any_of("rtx_recovered"),
            "nack": any_of("nacks_sent") or any_of("nacks_received"), "rtx up": any_of("rtx_recovered"), "rtx down": any_of("rtx_sent"),
            "nack up": any_of("nacks_sent"), "nack down": any_of("nacks_received"), "two workers": any_of("exported"),
            "levelling": any_of("levelling_bytes"), "shed": any_of("shed_layers") or any_of("shed_video"),
            "padding": any_of("padding_dropped"), "keyframe asked": any_of("keyframe_requests_sent"),
        }  # fmt: skip
        self.update(name for name, is_there in found.items() if is_there)
        self["cases"] += 1
        self["packets in"] += len(call.protected)
        self["payloads compared"] += compared

    def share(self, name: str) -> float:
        return self[name] / self["cases"]

    def missing(self) -> list[str]:
        return [
            f"{name}: {self.share(name):.0%}" for name, wanted in WANTED_SHARES.items() if self.share(name) < wanted
        ]

    def __str__(self) -> str:
        counts = ("cases", "packets in", "payloads compared")
        return ", ".join([f"{self[name]:,} {name}" for name in counts]
                         + [f"{name} {self.share(name):.0%}" for name in sorted(self) if name not in counts])  # fmt: skip


def judge(case: Case, shares: Shares) -> None:
    """Run a case twice; Interference when the second run shows that somebody looked."""
    call = Call(case)
    call.play()
    substitution = Substitution(case.seed)
    judged = Judge(call, replay(call, substitution), substitution.pairs)
    figures = judged.check()
    shares.add(call, figures, judged.compared)


def run(cases: int, *, number: int = 1, shrinks: bool = True) -> Shares:
    """Judge so many cases; the first Interference is raised, shrunk if wanted."""
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
        judge(case, shares)

    property()
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description="bytes that nobody may look at, replaced")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    began_s = time.monotonic()
    try:
        shares = run(options.cases, number=options.seed, shrinks=not options.no_shrink)
    except Interference as found:
        print(f"Interference: {found}", *getattr(found, "__notes__", ()), sep="\n")
        sys.exit(1)
    took_s = time.monotonic() - began_s
    print(f"{shares}\n{took_s:.0f} s, {took_s / shares['cases'] * 1e3:.1f} ms per case")
    if shares.missing():
        print("too few of", *shares.missing())
        sys.exit(1)


if __name__ == "__main__":
    main()

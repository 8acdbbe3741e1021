"""`make prove-blind`: the memory of a relay that carries an encrypted call holds nothing of it, and that of a clear one does.

A real relay (`veil serve`) carries a call of two participants who send recorded frames of every codec the format has, so what was
encoded is known byte for byte before it is sealed. While the call runs, all of the relay's memory, its open files and its log are
searched for windows of those frames and for the call's keys, their round keys and their text forms. Then the same participants
with the same relay binary make a clear call without any tap, in which the same search has to find the frames.

Covers: any 31 bytes of a frame in one piece, at the moment of a scan. Does not: bytes that were overwritten before a scan, pieces
that are shorter, and what a relay that was changed might do to memory elsewhere.

usage: python -m tests.adversary.prove_blind [--scans 10] [--seconds 30]      ends with 1 when it does not hold
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field

from relay.e2ee import linkkey, livekit_gcm, sframe
from tests.adversary.memory_scan import Finding, Needles, Scanner
from tests.interop.recorded.caller import Caller
from tests.interop.recorded.clips import Clip, record
from tests.interop.recorded.formats import CLEAR, Format, LinkKey, Passphrase
from tests.support.relay_process import RelayProcess, relay_process

PASSPHRASE = "five words that nobody guesses"
CODECS = {"sframe": ("vp8", "vp9", "av1", "opus"), "livekit_gcm": ("vp8", "vp9", "h264", "opus")}
MOST_HITS = 0
LEAST_HITS_IN_CLEAR = 100


@dataclass
class Proof:
    """All scans of one call."""

    name: str
    windows: int
    keys: int
    scans: list[Finding] = field(default_factory=list)
    frames_decoded: int = 0

    @property
    def hits(self) -> int:
        return sum(scan.hits for scan in self.scans)

    def __str__(self) -> str:
        read = self.scans[0].bytes_read / 1e6 if self.scans else 0.0
        return (
            f"{self.name:12} {len(self.scans)} scans of {read:.0f} MB for {self.windows:,} windows and {self.keys} forms of keys: "
            f"{self.hits} hits; {self.frames_decoded} frames decoded meanwhile"
        )


def needles_of(clips: list[Clip], format_: Format) -> Needles:
    """Return the windows of all frames behind what the format leaves readable (docs/security.md)."""
    needles = Needles()
    for clip in clips:
        for frame in clip.frames:
            clear = livekit_gcm.clear_bytes(clip.codec, frame.data) if isinstance(format_, Passphrase) else 1
            needles.add_frame(frame.data, clear_bytes=clear)
    return needles


def add_keys(needles: Needles, format_: Format, caller: Caller) -> None:
    """Add what the participants' keys are made of, and what is made of them."""
    if isinstance(format_, LinkKey):
        needles.add_key("link key", format_.link_key)
        for sent in caller.sent():
            base = linkkey.publication_key(format_.link_key, "ana", sent.track_sid)
            key, salt = sframe.derive(base, format_.kids[sent.track_sid])
            needles.add_key("base key", base)
            needles.add_aes_key("frame key", key)
            needles.add_key("frame salt", salt)
    elif isinstance(format_, Passphrase):
        needles.add_key("passphrase", PASSPHRASE.encode())
        needles.add_aes_key("frame key", livekit_gcm.Material(PASSPHRASE).key())
        needles.add_key("ratcheted material", livekit_gcm.Material(PASSPHRASE)._derive(livekit_gcm.MATERIAL_BYTES))


async def prove(relay: RelayProcess, name: str, format_: Format, codecs: tuple[str, ...], scans: int, seconds: float) -> Proof:
    """Return what the scans of one call found."""
    clips = [record(codec) for codec in codecs]
    needles = needles_of(clips, format_)
    terms = {} if format_ is CLEAR else {"veil.e2ee_profile": "shared-passphrase", "veil.frame_format": name}
    tokens = [relay.token(who, room=name, attributes=terms) for who in ("ana", "bo")]
    async with Caller(relay.ws_url, tokens[0], format_, publish=clips) as ana, Caller(relay.ws_url, tokens[1], format_) as bo:
        await bo.until(lambda: len(bo.everything()) == len(codecs) and all(c.decoded >= 10 for _, _, c in bo.everything()))
        add_keys(needles, format_, ana)
        ana.send_data(b"written by ana " * 4)
        scanner, began = Scanner(needles), time.monotonic()
        proof = Proof(name, len(needles.windows), len(needles.keys))
        for number in range(scans):
            await asyncio.sleep(max(0.0, began + number * seconds / scans - time.monotonic()))
            found = await asyncio.to_thread(scanner.scan_process, relay.pid, [relay.log_path])
            proof.scans.append(found)
        proof.frames_decoded = sum(counts.decoded for _, _, counts in bo.everything())
    return proof


def problems(sealed: list[Proof], clear: Proof) -> list[str]:
    """Say what does not hold; nothing when all does."""
    wrong = [f"{proof.name}: {proof.hits} hits: {proof.scans[0].places or [p for s in proof.scans for p in s.places][:5]}"
             for proof in sealed if proof.hits > MOST_HITS]  # fmt: skip
    wrong += [f"{p.name}: {p.frames_decoded} frames decoded: there was no call" for p in [*sealed, clear] if p.frames_decoded < 50]
    if clear.hits <= LEAST_HITS_IN_CLEAR:
        wrong.append(f"the clear call gave {clear.hits} hits: the search would not have seen the frames of the others either")
    return wrong


async def run(scans: int, seconds: float) -> tuple[list[Proof], Proof]:
    formats: dict[str, Format] = {"sframe": LinkKey(), "livekit_gcm": Passphrase(PASSPHRASE)}
    sealed = []
    for name, format_ in formats.items():
        # A process of its own for each: what another call left behind would be found.
        async with relay_process() as relay:
            sealed.append(await prove(relay, name, format_, CODECS[name], scans, seconds))
            print(sealed[-1], flush=True)
    async with relay_process() as relay:
        clear = await prove(relay, "clear", CLEAR, CODECS["sframe"], scans, seconds)
        print(clear, flush=True)
    return sealed, clear


def main() -> None:
    parser = argparse.ArgumentParser(description="search a relay's memory for what its calls encrypted")
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    try:
        wrong = problems(*asyncio.run(run(options.scans, options.seconds)))
    except PermissionError as error:
        sys.exit(f"the relay's memory cannot be read, so nothing is proven: {error}. Run it as root.")
    for line in wrong:
        print(f"DOES NOT HOLD: {line}")
    print("does not hold" if wrong else "holds: nothing of the encrypted calls was in the relay, and all of it could have been seen")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

"""Chromium watches Chromium over a path of 3 Mbit/s that becomes one of 400 kbit/s and recovers; `make bwe-browser` runs the seeds.

The path from the relay to the viewer is narrow, with a queue of 300 ms, everything else is not. Every frame that the
viewer's page shows is noted with its time and height, so resolution and freezes are what a person sees, not what statistics
say. Encodings are chosen so that the best does not fit into 400 kbit/s and the one below does.

usage: python -m tests.interop.bwe_browser [--seeds 1-5] [--only vp8,av1-e2ee] [--trace]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import statistics
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.interop.clients.builtin import HOOK, BuiltIn
from tests.interop.clients.cast import NEW_JS
from tests.interop.clients.livekit_js import LiveKitJs, bundle_site
from tests.interop.matrix import CONNECT_S, until
from tests.sim.link import Impairment
from tests.support.browsers import chromium
from tests.support.proxy import proxy_process
from tests.support.relay_process import RelayProcess, free_port, relay_process

RELAY_IP, PROXY_IP = "127.0.0.1", "127.0.0.2"
WIDE_BPS, NARROW_BPS = 3_000_000, 400_000
DELAY_S, QUEUE_S = 0.025, 0.3
# 60 s in all; before the fall the path is known and the best picture there, after it the smaller one has settled.
BEFORE_S, NARROW_S, AFTER_S = 15.0, 20.0, 25.0
DOWN_S, UP_S = 2.0, 12.0
FREEZE_MEDIAN_S, FREEZE_WORST_S = 1.0, 2.5
# As getStats counts them: a gap of three frames, and 150 ms more than usual.
FREEZE_GAP_S = 0.2
PASSPHRASE, LINK_KEY = "correct horse battery", bytes(range(32))
ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, FPS = 640, 360, 30
CLIP_FRAMES = 60

NOTE_FRAMES = """(selector) => {
  const video = document.querySelector(selector);
  window.shown = [];
  const note = (now, frame) => {
    window.shown.push([now, frame.height]);
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
}"""


@dataclass(frozen=True)
class Case:
    """One sender and viewer. `options` are LiveKit's; `video` is what the built-in page is made to send."""

    name: str
    codec: str
    is_encrypted: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    video: dict[str, Any] | None = None

    @property
    def heights(self) -> tuple[int, ...]:
        return (90, 180, 360) if self.codec in ("vp9", "av1") else (180, 360)


# A sender whose computer is busy must not send a smaller picture: that would be taken for what the path carries.
KEEPS_SIZE = {"degradationPreference": "maintain-resolution"}
SIMULCAST = {
    **KEEPS_SIZE,
    "videoCodec": "vp8",
    "videoEncoding": {"maxBitrate": 1_000_000, "maxFramerate": FPS},
    "videoSimulcastLayers": [[320, 180, 180_000, FPS]],
}


def svc(codec: str) -> dict[str, Any]:
    encoding = {"maxBitrate": 900_000, "maxFramerate": FPS}
    return {**KEEPS_SIZE, "videoCodec": codec, "scalabilityMode": "L3T3_KEY", "videoEncoding": encoding, "backupCodec": False}


# livekit-client encrypts no AV1, so that one is between two of our own pages, in SFrame.
AV1_PAGE = {
    "constraints": {"width": WIDTH, "height": HEIGHT, "frameRate": FPS},
    "mime": "video/AV1",
    "fmtp": "",
    "encodings": [{"scalabilityMode": "L3T3_KEY", "maxBitrate": 900_000}],
}
CASES = (
    Case("vp8", "vp8", options=SIMULCAST),
    Case("vp9", "vp9", options=svc("vp9")),
    Case("av1", "av1", options=svc("av1")),
    Case("h264", "h264", options={**SIMULCAST, "videoCodec": "h264"}),
    Case("vp8-e2ee", "vp8", is_encrypted=True, options=SIMULCAST),
    Case("vp9-e2ee", "vp9", is_encrypted=True, options=svc("vp9")),
    Case("av1-e2ee", "av1", is_encrypted=True, video=AV1_PAGE),
)


@dataclass(frozen=True)
class Call:
    """What the viewer saw. down_s, up_s: from the change of the path to the first frame of the other size, inf for never."""

    case: str
    seed: int
    down_s: float
    up_s: float
    freeze_s: float
    freeze_at_s: float
    frozen_s: float
    switches: int
    frames: int
    best: int
    # Of the narrow stretch, its second half: the sizes that were shown.
    narrow: tuple[int, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.case} seed {self.seed}: {self.problem}"
        return (
            f"{self.case} seed {self.seed}: {self.best} lines, down after {self.down_s:.2f} s to {'/'.join(map(str, self.narrow))}, "
            f"up after {self.up_s:.2f} s, longest freeze {self.freeze_s:.2f} s (from {self.freeze_at_s:.1f} s on), "
            f"frozen for {self.frozen_s:.2f} s in all, "
            f"{self.switches} switches, {self.frames} frames"
        )


def judge(case: Case, seed: int, shown: list[tuple[float, int]], fell_s: float, rose_s: float, over_s: float) -> Call:
    """Return what a timeline of (seconds, lines) means."""
    before = [lines for at, lines in shown if fell_s - 3 < at <= fell_s]
    best = max(before, default=0)

    def after(start: float, holds: Any) -> float:
        return next((at - start for at, lines in shown if at > start and holds(lines)), float("inf"))

    times = [at for at, _ in shown] + [over_s]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    narrow = sorted({lines for at, lines in shown if fell_s + NARROW_S / 2 < at < rose_s})
    return Call(
        case.name,
        seed,
        down_s=after(fell_s, lambda lines: lines < best),
        up_s=after(rose_s, lambda lines: lines >= best),
        freeze_s=max(gaps, default=over_s),
        freeze_at_s=times[gaps.index(max(gaps))] if gaps else 0.0,
        frozen_s=sum(gap for gap in gaps if gap > FREEZE_GAP_S),
        switches=sum(a[1] != b[1] for a, b in itertools.pairwise(shown)),
        frames=len(shown),
        best=best,
        narrow=tuple(narrow),
        problem="" if best == case.heights[-1] else f"{best} lines at {WIDE_BPS} bit/s, {case.heights[-1]} wanted",
    )


def problems(calls: list[Call]) -> list[str]:
    """Return what the goals do not allow: medians and worsts over the seeds of each case."""
    found = [str(call) for call in calls if call.problem]
    for name, group in itertools.groupby(calls, key=lambda call: call.case):
        mine = [call for call in group if not call.problem]
        if not mine:
            continue
        for what, figure, goal in (
            ("down (median)", statistics.median(c.down_s for c in mine), DOWN_S),
            ("up (median)", statistics.median(c.up_s for c in mine), UP_S),
            ("freeze (median)", statistics.median(c.freeze_s for c in mine), FREEZE_MEDIAN_S),
            ("freeze (worst)", max(c.freeze_s for c in mine), FREEZE_WORST_S),
        ):
            if figure > goal:
                found.append(f"{name}: {what} {figure:.2f} s, {goal:g} s allowed")
    return found


def down(rate_bps: int) -> Impairment:
    """Return the path from the relay to everybody: at this rate, with its queue."""
    return Impairment(delay_s=DELAY_S, rate_bps=rate_bps, queue_bytes=int(rate_bps * QUEUE_S / 8))


async def trace(relay: RelayProcess, token: str) -> None:
    """Print what the relay says of the viewer's picture, four times a second."""
    begun = asyncio.get_running_loop().time()
    before: list[str] = []
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        while True:
            async with http.get(relay.ws_url.replace("ws://", "http://") + "/veil/quality") as answer:
                told = await answer.json()
            pictures = [s for s in told.get("subscriptions", ()) if s["kind"] == "video"]
            at = asyncio.get_running_loop().time() - begun
            words = [f"{at:6.2f} s", f"{told.get('estimate_bps')} bit/s, {told.get('wanted_bps')} wanted"]
            for s in pictures:
                for which in ("current", "best"):
                    words.append(which + " {rid}S{spatial}T{temporal} {height}p{fps} {bps}".format(**s[which]) if s[which] else "none")
                words.append(s["reason"])
            if words[1:] != before:
                before = words[1:]
                print("  ", ", ".join(words), flush=True)
            await asyncio.sleep(0.25)


async def call(case: Case, seed: int, *, is_traced: bool = False) -> Call:
    """Run one call and return its figures."""
    port = free_port()
    environ = {
        "VEIL_MEDIA_UDP_PORT": str(port),
        "VEIL_MEDIA_BIND_IPS": RELAY_IP,
        "VEIL_MEDIA_ADVERTISE_IPS": f"{RELAY_IP}={PROXY_IP}",
        "VEIL_LOG_LEVEL": "info",
    }
    up = Impairment(delay_s=DELAY_S)
    async with (
        proxy_process((PROXY_IP, port), (RELAY_IP, port), seed=seed, up=up, down=down(WIDE_BPS)) as proxy,
        relay_process(environ=environ) as relay,
        contextlib.AsyncExitStack() as stack,
    ):
        sender, viewer = [await stack.enter_async_context(_client(case)) for _ in range(2)]
        shown_from = await _enter(relay, sender, case, "one", sends=True)
        shown_to = await _enter(relay, viewer, case, "two")
        await sender.publish(audio=True, video=True, **_publishing(case))

        async def is_there() -> bool:
            return (await viewer.state()).of(shown_from).frames_decoded > 0

        if not await until(is_there, CONNECT_S):
            return Call(case.name, seed, 0, 0, 0, 0, 0, 0, 0, 0, problem=f"no frame in {CONNECT_S} s")
        if is_traced:
            tracing = asyncio.create_task(trace(relay, relay.token(shown_to, room="room")))
            stack.callback(tracing.cancel)
        page = viewer.page
        selector = "#stage li[data-identity]:not(.is-local) video" if case.video else "video"
        await page.evaluate(NOTE_FRAMES, selector)
        marks = [await page.evaluate("() => performance.now()")]
        for seconds, rate_bps in ((BEFORE_S, NARROW_BPS), (NARROW_S, WIDE_BPS), (AFTER_S, 0)):
            await asyncio.sleep(seconds)
            marks.append(await page.evaluate("() => performance.now()"))
            if rate_bps:
                proxy.impair(up, down(rate_bps))
        shown = await page.evaluate("() => window.shown")
        begun, fell, rose, over = (mark / 1e3 for mark in marks)
        frames = [(at / 1e3 - begun, int(lines)) for at, lines in shown]
        if not frames:
            return Call(case.name, seed, 0, 0, 0, 0, 0, 0, 0, 0, problem="no frame was shown")
        return judge(case, seed, frames, fell - begun, rose - begun, over - begun)


def scene() -> Path:
    """Return a clip for the fake camera, made once: a texture that drifts under grain. Chromium's own is so plain that its best
    encoding costs less than the narrow path carries."""
    path = ROOT / "build" / f"drift-{WIDTH}x{HEIGHT}.y4m"
    if path.exists():
        return path
    rng = np.random.default_rng(1)
    rough = rng.integers(0, 256, (HEIGHT // 6, 2 * WIDTH // 6)).astype(np.float32)
    texture = np.kron(rough, np.ones((6, 6), np.float32))
    for _ in range(3):
        texture = (texture + np.roll(texture, 1, 0) + np.roll(texture, 1, 1) + np.roll(texture, (1, 1), (0, 1))) / 4
    chroma = np.full((HEIGHT // 2) * (WIDTH // 2), 128, np.uint8).tobytes()
    frames = [b"YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420jpeg\n" % (WIDTH, HEIGHT, FPS)]
    for number in range(CLIP_FRAMES):
        # There and back, so that the clip has no seam.
        shift = 8 * (number if number < CLIP_FRAMES // 2 else CLIP_FRAMES - number)
        luma = texture[:, shift : shift + WIDTH] * 0.7 + 30 + rng.normal(0, 5, (HEIGHT, WIDTH))
        frames.append(b"FRAME\n" + np.clip(luma, 16, 235).astype(np.uint8).tobytes() + 2 * chroma)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(frames))
    return path


@contextlib.asynccontextmanager
async def _client(case: Case) -> AsyncIterator[Any]:
    """Open a Chromium whose camera shows the clip."""
    async with chromium(flags=(f"--use-file-for-fake-video-capture={scene()}",)) as page:
        if case.video:
            await page.run_first(HOOK.read_text())
            yield BuiltIn("built-in page", page)
        else:
            async with bundle_site(NEW_JS) as url:
                await page.goto(url)
                yield LiveKitJs("livekit-client", page)


async def _enter(relay: RelayProcess, client: Any, case: Case, identity: str, *, sends: bool = False) -> str:
    """Join; return who it is there: the built-in page is given another name."""
    options: dict[str, Any] = {"room": "room", "identity": identity}
    attributes: dict[str, str] = {}
    if case.is_encrypted:
        kind = "sframe" if case.video else "livekit_gcm"
        attributes = {"veil.e2ee_profile": "shared-passphrase", "veil.frame_format": kind}
        if case.video:
            options["link_key"] = base64.urlsafe_b64encode(LINK_KEY).decode().rstrip("=")
        else:
            options["passphrase"] = PASSPHRASE
    if sends and case.video:
        options["video"] = case.video
    return await client.join(relay.ws_url, relay.token(identity, room="room", attributes=attributes), **options)


def _publishing(case: Case) -> dict[str, Any]:
    return {} if case.video else {"width": WIDTH, "height": HEIGHT, "fps": FPS, "options": case.options}


def table(calls: list[Call]) -> Table:
    found = Table(title=f"Chromium to Chromium, {WIDE_BPS / 1e6:g} Mbit/s, {NARROW_BPS / 1e3:g} kbit/s, {WIDE_BPS / 1e6:g} Mbit/s; medians")
    found.add_column("case")
    for name in ("seeds", "down (goal 2)", "worst", "up (goal 12)", "worst", "freeze (goal 1)", "worst (goal 2.5)", "frozen"):
        found.add_column(name, justify="right")
    for name, group in itertools.groupby(calls, key=lambda c: c.case):
        mine = [c for c in group if not c.problem]
        if mine:
            cells: list[str] = [name, str(len(mine))]
            for values in ([c.down_s for c in mine], [c.up_s for c in mine], [c.freeze_s for c in mine]):
                cells += [f"{statistics.median(values):.2f} s", f"{max(values):.2f} s"]
            found.add_row(*cells, f"{statistics.median(c.frozen_s for c in mine):.2f} s")
    return found


async def run(cases: list[Case], seeds: list[int], *, is_traced: bool = False) -> list[str]:
    """Run the calls one after another, print them, return what is wrong."""
    calls = []
    for case in cases:
        for seed in seeds:
            calls.append(await call(case, seed, is_traced=is_traced))
            print(calls[-1], flush=True)
    Console(width=150).print(table(calls))
    return problems(calls)


def main() -> None:
    parser = argparse.ArgumentParser(description="pictures over a path that narrows and recovers")
    parser.add_argument("--seeds", default="1-5", help="first-last, or one")
    parser.add_argument("--only", default="", help=f"of {', '.join(case.name for case in CASES)}")
    parser.add_argument("--trace", action="store_true", help="print what the relay says meanwhile")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    names = options.only.split(",") if options.only else [case.name for case in CASES]
    cases = [case for case in CASES if case.name in names]
    if len(cases) != len(set(names)):
        parser.error(f"there are {', '.join(case.name for case in CASES)}")
    found = asyncio.run(run(cases, seeds, is_traced=options.trace))
    for problem in found:
        print(f"FAIL {problem}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

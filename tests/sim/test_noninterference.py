"""Payload bytes decide nothing: a few hundred calls, each run twice, and relays that look, all of which are found out.

`make noninterference` judges ten thousand of each kind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import relaycore
from relaycore.srtp import DEBUG_TWIN
from tests.sim.noninterference import WANTED_SHARES, Interference, Judge, Substitution, run
from tests.sim.schedule import Call, Case, replay
from tests.sim.senders import Sent

ROOT = Path(__file__).parents[2]
CORE = ROOT / "ext/relaycore"

# name: (module, what stands there, what a relay that looks into the frame has there)
PEEKS = {
    "keyframe bit of VP9's frame": (
        "vp9",
        "if not flags & 0x40 and out.spatial_id == 0:",
        "if (not flags & 0x40 or payload[at] & 0x04 == 0) and out.spatial_id == 0:",
    ),
    "size of VP8's picture": (
        "vp8",
        "if payload[at] & 0x01 == 0:",
        "if payload[at] & 0x01 == 0 and not (n > at + 6 and payload[at + 6] & 1):",
    ),
    "frame count in Opus's first byte": (
        "receive",
        "return _view(s, f, slot.data + f.rtp.payload_offset) if r.spec.is_video else E_OK",
        "s.frames += 0 if r.spec.is_video else slot.data[f.rtp.payload_offset] & 3\n"
        "    return _view(s, f, slot.data + f.rtp.payload_offset) if r.spec.is_video else E_OK",
    ),
    "type of AV1's OBU": (
        "av1",
        "out.keyframe = <uint8_t>is_first",
        "out.keyframe = <uint8_t>(is_first or payload[1] >> 3 & 15 == 1)",
    ),
    "first macroblock of H264's slice": (
        "h264",
        "_count_nal((payload[0] & 0x60) | (payload[1] & 0x1f), payload[1] >> 7, out)",
        "_count_nal((payload[0] & 0x60) | (payload[1] & 0x1f), payload[1] >> 7 and n > 2 and payload[2] >> 7, out)",
    ),
    "a length in the payload's last byte": (
        "forward",
        "item.payload_bytes = f.rtp.payload_bytes - skipped\n",
        "item.payload_bytes = f.rtp.payload_bytes - skipped - (f.rtp.payload_bytes > 1 and item.payload[f.rtp.payload_bytes - 1] == 0)\n",
    ),
    "a mark that decides about more than the stop": (
        "fanout",
        "    if r.exports:\n",
        "    if r.probe != NULL and r.probe.tracks[f.encoding].verdicts & 1:\n        return\n    if r.exports:\n",
    ),
    "a stop that mirrors are not told": (
        "mirrors",
        "if r != NULL and signal.kind == SIGNAL_STOP and r.home == <int32_t>source:",
        "if r != NULL and signal.kind == SIGNAL_STOP and r.home == <int32_t>source and False:",
    ),
    "a keyframe that is cached by its last byte": (
        "replay",
        "starts = starts and f.view.source > 0 and",
        "starts = starts and f.view.source > 0 and slot.data[f.rtp.payload_offset + f.rtp.payload_bytes - 1] & 1 and",
    ),
    "the probe's look beyond the mark": (
        "markprobe",
        "    if ext_seq < k.next_seq:\n",
        "    c.frames_unmarked += payload[h.payload_bytes // 2] & 1\n    if ext_seq < k.next_seq:\n",
    ),
}


@pytest.mark.parametrize("what", ["outside", "marks"])
def test_what_a_payload_holds_decides_nothing(what):
    shares = run(what, 300)
    assert shares.missing() == [], shares
    assert set(WANTED_SHARES) == {"switch", "rtx", "nack", "loss", "red", "restart", "mirrors removed", "cache",
                                   "layers"}  # fmt: skip
    assert shares["payloads compared"] > 15_000
    # Each side of a repair, both kinds of worker, and levelling took part.
    for name in (
        "rtx up",
        "rtx down",
        "nack up",
        "nack down",
        "two workers",
        "levelling",
        "padding",
        "shed",
        "keyframe asked",
        "red stripped",
        "opaque",
    ):
        assert shares.share(name) > 0.02, shares
    # Bad marks do stop, and only they.
    assert shares["stopped"] == 0 if what == "outside" else shares.share("stopped") > 0.1


@pytest.mark.parametrize("where", ["header", "payload", "time"])
def test_a_difference_is_seen(where):
    """Controls: a second run that is not the same schedule, and one whose payloads are not those put in."""
    call = Call(Case(7, "vp8", "clear", False, "simulcast", 0, bytes(100)))
    call.play()
    substitution = Substitution(1, "outside")

    def changed(sent: Sent) -> bytes:
        packet = bytearray(substitution(sent))
        if where == "header":
            packet[7] ^= 1
        return bytes(packet)

    pairs = substitution.pairs if where != "payload" else {}
    if where == "time":
        call.record = [("poll", entry[1] + 1) if entry[0] == "poll" else entry for entry in call.record]
    with pytest.raises(Interference):
        Judge(call, replay(call, changed), pairs).check()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """One tree with all peeks, a module each, built at once."""
    folder = tmp_path_factory.mktemp("peeks")
    shutil.copytree(CORE, folder / "ext/relaycore", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for module, old, new in PEEKS.values():
        source = folder / f"ext/relaycore/{module}.pyx"
        text = source.read_text()
        assert text.count(old) == 1, f"{module}: the peek no longer fits the source"
        source.write_text(text.replace(old, new))
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env=os.environ
        | {
            "VEIL_MODULES": ",".join(module for module, _, _ in PEEKS.values()),
            "RELAY_WERROR": "0",
            "RELAY_DEBUG": str(int(DEBUG_TWIN)),
        },  # fmt: skip
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "ext/relaycore"


def judged(tmp_path: Path, built: Path, module: str | None, cases: int) -> subprocess.CompletedProcess:
    """The property over the built relay with one module of the other tree."""
    core = tmp_path / "ext/relaycore"
    core.mkdir(parents=True)
    for file in Path(relaycore.__file__).parent.iterdir():
        if file.suffix in (".so", ".py"):
            (core / file.name).symlink_to(built / file.name if file.name.startswith(f"{module}.") else file)
    return subprocess.run(
        [sys.executable, "-m", "tests.sim.noninterference", "--cases", str(cases), "--no-shrink"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'ext'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
# A relay of its own is built for each; once is enough, with the compiler's optimisations on.
@pytest.mark.slow
@pytest.mark.parametrize("name", PEEKS)
def test_a_relay_that_looks_is_found_out(name, built, tmp_path):
    done = judged(tmp_path, built, PEEKS[name][0], 400)
    assert done.returncode == 1 and "\nInterference (" in f"\n{done.stdout}", done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.slow
def test_the_same_relay_without_a_peek_is_not(built, tmp_path):
    done = judged(tmp_path, built, None, 200)
    assert done.returncode == 0 and done.stdout.startswith("outside: 200 cases"), done.stdout + done.stderr

"""The page's frame formats and keys are those of relay/e2ee, byte for byte, and nothing else opens.

They run where they are meant to run, in a browser; the Python side met the working group's vectors and LiveKit's own worker.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from relay.e2ee import framing, linkkey, livekit_gcm, sframe
from tests.browser.test_web_modules import modules

pytestmark = pytest.mark.browser

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/sframe/sframe-test-vectors.json").read_text())
RNG = random.Random(4)
LINK_KEY = bytes(range(32))
SSRC, TIMESTAMP = 0xFFFFFFFE, 0x80000001
SLICE = bytes.fromhex("00000109f0 000000016742001f 00000168ce3c80 00000165b8")
FRAMES = {
    "opus": b"\x78" + RNG.randbytes(90), "vp8": b"\x10" + RNG.randbytes(900), "vp9": RNG.randbytes(700),
    "av1": RNG.randbytes(300), "h264": SLICE + RNG.randbytes(400) + bytes(9),
}  # fmt: skip

HEX = """const hex = (text) => Uint8Array.from(text.match(/../g) ?? [], (two) => parseInt(two, 16));
const unhex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const keys = await import("/js/e2ee/keys.js");
const { SframeCipher, parseHeader, writeHeader } = await import("/js/e2ee/sframe.js");
const { LivekitCipher } = await import("/js/e2ee/livekit.js");
const failure = async (act) => {
  try { return {plain: unhex((await act()) ?? [])}; } catch (error) { return {reason: error.reason ?? String(error)}; }
};
"""


async def run(body: str, argument: Any) -> Any:
    async with modules() as page:
        return await page.evaluate(f"async (given) => {{ {HEX} {body} }}", argument)


async def test_headers_of_the_working_group() -> None:
    given = [[str(v["kid"]), str(v["ctr"]), v["encoded"]] for v in VECTORS["header"]]
    found = await run(
        """return given.map(([kid, ctr, encoded]) => {
          const read = parseHeader(hex(encoded));
          return [unhex(writeHeader(BigInt(kid), BigInt(ctr))), String(read.kid), String(read.ctr)];
        });""",
        given,
    )
    assert found == [[encoded, kid, ctr] for kid, ctr, encoded in given]


async def test_sframe_is_that_of_the_library_both_ways_and_repeats_and_changes_do_not_open() -> None:
    base = linkkey.publication_key(LINK_KEY, "ana é", "TR_VCabc")
    given = {}
    for codec in framing.CODECS:
        sealer = sframe.Sealer(sframe.FrameKey(base, 0))
        first, second = (framing.seal(sealer, codec, FRAMES[codec], is_keyframe=key) for key in (True, False))
        given[codec] = {"frame": FRAMES[codec].hex(), "sealed": [first.hex(), second.hex()]}
    found = await run(
        """const base = await keys.publicationKey(hex(given.key), "ana é", "TR_VCabc");
        const cipher = async () => new SframeCipher(await keys.sframeKeys(base, 0), 0);
        const out = {};
        for (const [codec, {frame, sealed}] of Object.entries(given.codecs)) {
          const [sender, receiver] = [await cipher(), await cipher()];
          const ours = [unhex(await sender.seal(codec, hex(frame), {isKeyframe: true})),
                        unhex(await sender.seal(codec, hex(frame), {isKeyframe: false}))];
          const [late, early, again] = [await receiver.open(codec, hex(sealed[1])), await receiver.open(codec, hex(sealed[0])),
                                        await receiver.open(codec, hex(sealed[1]))];
          const changed = hex(sealed[0]);
          changed[changed.length - 20] ^= 1;
          const fresh = await cipher();
          out[codec] = {ours, late: unhex(late), early: unhex(early), again, changed: await failure(() => fresh.open(codec, changed)),
                        afterwards: await failure(() => fresh.open(codec, hex(sealed[0])))};
        }
        return out;""",
        {"key": LINK_KEY.hex(), "codecs": given},
    )
    for codec, expected in given.items():
        frame = expected["frame"]
        assert found[codec] == {
            "ours": expected["sealed"], "late": frame, "early": frame, "again": None,
            "changed": {"reason": "mismatch"}, "afterwards": {"plain": frame},
        }, codec  # fmt: skip


async def test_livekits_format_is_that_of_the_library_both_ways() -> None:
    material = livekit_gcm.Material("correct horse")
    ring = livekit_gcm.KeyRing(ratchet_window=0)
    ring.set(material)
    given = {
        codec: {
            "frame": FRAMES[codec].hex(),
            "sealed": livekit_gcm.Sealer(material, codec, SSRC).seal(FRAMES[codec], TIMESTAMP).hex(),
        }
        for codec in livekit_gcm.CODECS
    }
    found = await run(
        """const cipher = new LivekitCipher(await keys.passphraseKey("correct horse"));
        const other = new LivekitCipher(await keys.passphraseKey("another"));
        const out = {};
        for (const [codec, {frame, sealed}] of Object.entries(given.codecs)) {
          out[codec] = {
            ours: unhex(await cipher.seal(codec, hex(frame), {ssrc: given.ssrc, timestamp: given.timestamp})),
            opened: unhex(await cipher.open(codec, hex(sealed))),
            wrong: await failure(() => other.open(codec, hex(sealed))),
            clear: await failure(() => cipher.open(codec, hex(frame))),
          };
        }
        return out;""",
        {"codecs": given, "ssrc": SSRC, "timestamp": TIMESTAMP},
    )
    for codec in given:
        ours = bytes.fromhex(found[codec]["ours"])
        carried = given[codec]["frame"]
        if codec == "h264":
            carried = livekit_gcm.long_start_codes(SLICE).hex() + carried[2 * len(SLICE) :]
        assert ring.open_frame(codec, ours).hex() == carried
        assert found[codec]["opened"] == carried
        assert found[codec]["wrong"] == {"reason": "mismatch"}
        assert "reason" in found[codec]["clear"]
        if codec != "h264":
            # What the relay's mark view reads: publisher's SSRC and timestamp, the IV's length, the key's index.
            assert ours[-14:-6] == SSRC.to_bytes(4, "big") + TIMESTAMP.to_bytes(4, "big") and ours[-2:] == b"\x0c\0"


LINKS: list[tuple[str, object]] = [
    ("#room=a", None),
    (linkkey.fragment(LINK_KEY), {"format": "sframe", "key": LINK_KEY.hex()}),
    (linkkey.passphrase_fragment("a+b &c"), {"format": "livekit_gcm", "passphrase": "a+b &c"}),
    (linkkey.passphrase_fragment(" u\u0308 "), {"format": "livekit_gcm", "passphrase": " u\u0308 "}),
    ("#passphrase=", None),
    ("#key=AAAA", "BadSecret"),
    ("#key=" + "!" * 43, "BadSecret"),
    (linkkey.fragment(LINK_KEY) + "&passphrase=x", "BadSecret"),
]


async def test_links_are_read_as_the_library_reads_them() -> None:
    found = await run(
        """return given.map((fragment) => {
          try {
            const secret = keys.readSecret(fragment);
            return secret?.key ? {...secret, key: unhex(secret.key)} : secret;
          } catch (error) { return error.constructor.name; }
        });""",
        [fragment for fragment, _ in LINKS],
    )
    assert found == [expected for _, expected in LINKS]

"""Modules of the built-in page that compute: the grid for every count and shape of stage, and DataPacket on the wire.

They run where they are meant to run, in a browser, and are held against arithmetic and protocol buffers in Python.
"""

import base64
import contextlib
import itertools
import random
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from livekit.protocol import models

from relay.signaling.web_files import WebFiles
from tests.support.browsers import ChromiumPage, chromium

pytestmark = pytest.mark.browser

STAGES = [(1440, 800), (1920, 960), (1024, 700), (800, 800), (844, 330), (390, 700), (374, 712), (600, 1000), (1080, 360), (320, 480)]
GAP = 8


@contextlib.asynccontextmanager
async def modules() -> AsyncIterator[ChromiumPage]:
    """Serve the shipped files as the relay does, and open the page."""
    files = WebFiles()

    async def answer(request: web.Request) -> web.StreamResponse:
        return files.respond(request) or web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with chromium() as page:
            await page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            yield page
    finally:
        await runner.cleanup()


def largest_area(count: int, width: int, height: int, ratios: list[float]) -> float:
    """Return the area of the largest tile by trying every number of columns."""
    best = 0.0
    for columns, ratio in itertools.product(range(1, count + 1), ratios):
        rows = -(-count // columns)
        room_w, room_h = (width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows
        tile_w = min(room_w, room_h * ratio)
        if tile_w > 0:
            best = max(best, tile_w * tile_w / ratio)
    return best


async def test_grid_of_1_to_25_tiles_is_the_largest_that_fits_any_stage() -> None:
    async with modules() as page:
        laid_out = await page.evaluate(
            """async (stages, gap) => {
              const { bestGrid, gridLayout } = await import("/js/grid.js");
              return stages.map(([w, h]) => Array.from({length: 25}, (_, index) => {
                const count = index + 1;
                return {best: bestGrid(count, w, h, gap), places: gridLayout(count, w, h, gap)};
              }));
            }""",
            STAGES,
            GAP,
        )
    for (width, height), counts in zip(STAGES, laid_out, strict=True):
        ratios = [16 / 9, 4 / 3, 1.0] if height > width else [16 / 9]
        for count, layout in enumerate(counts, start=1):
            where = f"{count} tiles on {width}×{height}"
            best, places = layout["best"], layout["places"]
            area = best["width"] * best["height"]
            assert area == pytest.approx(largest_area(count, width, height, ratios), rel=1e-6), where
            assert len(places) == count
            assert any(best["width"] / best["height"] == pytest.approx(ratio) for ratio in ratios), where
            for place in places:
                # Whole pixels move an edge by one at most.
                assert -1 <= place["x"] and place["x"] + place["width"] <= width + 1, where
                assert -1 <= place["y"] and place["y"] + place["height"] <= height + 1, where
                assert (place["width"], place["height"]) == (int(best["width"]), int(best["height"])), where
            for one, other in itertools.combinations(places, 2):
                apart_x = abs(one["x"] - other["x"]) >= best["width"] + GAP - 2
                apart_y = abs(one["y"] - other["y"]) >= best["height"] + GAP - 2
                assert apart_x or apart_y, where


async def test_shared_screen_gets_most_of_the_stage_and_overlaps_nothing() -> None:
    async with modules() as page:
        laid_out = await page.evaluate(
            """async (stages, gap) => {
              const { spotlightLayout } = await import("/js/grid.js");
              return stages.map(([w, h]) => [2, 3, 7, 26].map((count) => spotlightLayout(count, w, h, gap)));
            }""",
            STAGES,
            GAP,
        )
    for (width, height), layouts in zip(STAGES, laid_out, strict=True):
        for places in layouts:
            screen, *faces = places
            # On a stage held upright a screen is as wide as it can be, and no taller than screens are.
            assert screen["width"] == width or screen["width"] * screen["height"] > 0.7 * width * height
            assert all(screen["width"] * screen["height"] > face["width"] * face["height"] for face in faces)
            for face in faces:
                beside = face["x"] >= screen["x"] + screen["width"]
                below = face["y"] >= screen["y"] + screen["height"]
                assert beside or below
                assert face["x"] + face["width"] <= width + 1 and face["y"] + face["height"] <= height + 1
                assert face["width"] > 0 and face["height"] > 0


def random_packet(rng: random.Random) -> models.DataPacket:
    """Return a packet with the fields the page knows, and some it does not."""
    packet = models.DataPacket(
        kind=rng.choice([models.DataPacket.Kind.RELIABLE, models.DataPacket.Kind.LOSSY]),
        participant_sid=rng.choice(["", "PA_abc"]),
        participant_identity=rng.choice(["", "ada", "Zoë 🙂"]),
        destination_identities=rng.choice([[], ["bo"], ["bo", "çelik"]]),
        sequence=rng.choice([0, 1, 127, 128, 2**31, 2**32 - 1]),
    )
    kind = rng.randrange(4)
    if kind == 0:
        packet.user.payload = rng.randbytes(rng.choice([0, 1, 127, 128, 20_000]))
        packet.user.topic = rng.choice(["", "chat", "t" * 300])
        packet.user.id = rng.choice(["", "id-1"])
        packet.user.start_time = rng.choice([0, 2**63])
        packet.user.destination_identities.extend(packet.destination_identities)
        packet.user.nonce = rng.randbytes(12)
    elif kind == 1:
        packet.chat_message.id = "m1"
        packet.chat_message.timestamp = rng.choice([0, 1, 1_795_400_000_123, 2**53 - 1])
        packet.chat_message.message = rng.choice(["", "hi", "è" * 500])
        packet.chat_message.deleted = rng.random() < 0.3
        packet.chat_message.generated = rng.random() < 0.3
    elif kind == 2:
        packet.encrypted_packet.iv = rng.randbytes(12)
        packet.encrypted_packet.encrypted_value = rng.randbytes(100)
    return packet


DECODE = """async (packets) => {
  const { decodePacket } = await import("/js/datapacket.js");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const text = (bytes) => { let out = ""; for (const byte of bytes) out += String.fromCharCode(byte); return btoa(out); };
  return packets.map((packet) => {
    const read = decodePacket(bytes(packet).buffer);
    if (read?.user) read.user.payload = text(read.user.payload);
    for (const name of ["iv", "value"]) if (read?.encrypted) read.encrypted[name] = text(read.encrypted[name]);
    return read;
  });
}"""

ENCODE = """async (packets) => {
  const { encodePacket } = await import("/js/datapacket.js");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const text = (bytes) => { let out = ""; for (const byte of bytes) out += String.fromCharCode(byte); return btoa(out); };
  return packets.map((packet) => {
    if (packet.user) packet.user.payload = bytes(packet.user.payload);
    for (const name of ["iv", "value"]) if (packet.encrypted) packet.encrypted[name] = bytes(packet.encrypted[name]);
    return text(encodePacket(packet));
  });
}"""


async def test_data_packets_agree_with_protocol_buffers_both_ways(rng: random.Random) -> None:
    packets = [random_packet(rng) for _ in range(200)]
    async with modules() as page:
        decoded = await page.evaluate(DECODE, [base64.b64encode(p.SerializeToString()).decode() for p in packets])
        encoded = await page.evaluate(ENCODE, decoded)
    for packet, read, written in zip(packets, decoded, encoded, strict=True):
        assert read["kind"] == models.DataPacket.Kind.Name(packet.kind)
        assert read["participantSid"] == packet.participant_sid
        assert read["participantIdentity"] == packet.participant_identity
        assert read["destinationIdentities"] == list(packet.destination_identities)
        assert read["sequence"] == packet.sequence
        back = models.DataPacket.FromString(base64.b64decode(written))
        assert back.WhichOneof("value") == (
            packet.WhichOneof("value") if read["user"] or read["chat"] or read["encrypted"] else None
        )
        if packet.HasField("user"):
            assert base64.b64decode(read["user"]["payload"]) == packet.user.payload == back.user.payload
            assert read["user"]["topic"] == packet.user.topic == back.user.topic
            assert read["user"]["destinationIdentities"] == list(back.user.destination_identities)
        if packet.HasField("encrypted_packet"):
            assert back.encrypted_packet == packet.encrypted_packet
        if packet.HasField("chat_message"):
            assert read["chat"]["message"] == packet.chat_message.message == back.chat_message.message
            assert read["chat"]["timestamp"] == packet.chat_message.timestamp == back.chat_message.timestamp
            assert read["chat"]["deleted"] == packet.chat_message.deleted == back.chat_message.deleted


async def test_bytes_that_are_no_packet_are_dropped_and_never_raise(rng: random.Random) -> None:
    whole = models.DataPacket(participant_sid="PA_x", sequence=300)
    whole.chat_message.message = "hello"
    good = whole.SerializeToString()
    bad = [good[:-1], good[: len(good) // 2], b"\xff" * 20, b"\x12\x7f", b"\x10", b"\x07", b"\x03", b"\x02\x00", b"\x12\x01\x80"]
    noise = [rng.randbytes(rng.randrange(1, 60)) for _ in range(300)]
    async with modules() as page:
        decoded = await page.evaluate(DECODE, [base64.b64encode(data).decode() for data in bad + noise])
    assert decoded[: len(bad)] == [None] * len(bad)

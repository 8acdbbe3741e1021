"""The recorded caller's own parts: what it packs it unpacks, what it seals it opens and decodes; then once through a relay."""

import asyncio

import pytest

from relay.e2ee.errors import OpenFailed
from tests.interop.recorded.caller import Caller
from tests.interop.recorded.clips import Decoder, record
from tests.interop.recorded.formats import CLEAR, Format, LinkKey, Passphrase
from tests.interop.recorded.payloads import Packetiser, assemble
from tests.support.relay_process import RelayProcess, relay_process

CODECS = ("vp8", "vp9", "av1", "h264", "opus")
LIVEKIT, SFRAME = Passphrase("correct horse"), LinkKey(bytes(range(32)))
SEALED = [
    *((codec, LIVEKIT) for codec in ("vp8", "vp9", "h264", "opus")),
    *((codec, SFRAME) for codec in ("vp8", "vp9", "av1", "opus")),
]
CASES = [*((codec, CLEAR) for codec in CODECS), *SEALED]


def decoded(codec: str, format_: Format, opens: Format) -> int:
    """Frames of a clip that come out behind sealing, packets, opening and a decoder."""
    clip = record(codec)
    seal, open_ = format_.seal("ana", "TR_1", codec, 77), opens.open("ana", "TR_1", codec)
    packetiser, decoder, count = Packetiser(codec, clip.width, clip.height), Decoder(codec), 0
    for number, frame in enumerate(clip.frames):
        sealed = seal(frame.data, number * clip.ticks, frame.is_keyframe)
        packets = packetiser.packets(sealed, frame.is_keyframe)
        for assembled in assemble(codec, [payload for payload, _ in packets]):
            for part in format_.split(codec, assembled):
                plaintext = open_(part)
                assert plaintext is not None
                count += decoder.decode(plaintext)
    return count


@pytest.mark.parametrize(("codec", "format_"), CASES, ids=lambda value: value if isinstance(value, str) else type(value).__name__)
def test_every_frame_of_a_clip_is_decoded_behind_packets(codec: str, format_: Format) -> None:
    assert decoded(codec, format_, format_) == len(record(codec).frames)


@pytest.mark.parametrize(("codec", "format_"), SEALED, ids=lambda value: value if isinstance(value, str) else type(value).__name__)
def test_another_key_opens_nothing(codec: str, format_: Format) -> None:
    other: Format = Passphrase("another") if format_ is LIVEKIT else LinkKey(bytes(32))
    with pytest.raises(OpenFailed):
        decoded(codec, format_, other)


def test_frames_of_video_take_several_packets() -> None:
    """Else the tests above would not have cut anything."""
    for codec in CODECS[:4]:
        assert max(len(frame.data) for frame in record(codec).frames) > 1100


async def call(relay: RelayProcess, format_: Format, codecs: list[str]) -> None:
    """Ana plays clips to Bo until he has decoded twenty pictures, or a second of sound, of each; Bo answers in a data packet."""
    room = type(format_).__name__
    clips = [record(codec) for codec in codecs]
    async with (
        Caller(relay.ws_url, relay.token("ana", room=room, attributes=format_.attributes), format_, publish=clips) as ana,
        Caller(relay.ws_url, relay.token("bo", room=room, attributes=format_.attributes), format_) as bo,
    ):
        await bo.until(lambda: len(bo.everything()) == len(codecs) and all(c.decoded >= 20 for _, _, c in bo.everything()))
        await bo.until(lambda: bo.received("ana", "audio").decoded >= 50)
        for _, kind, counts in bo.everything():
            assert not counts.failures and counts.lost == 0
            assert counts.decoded >= 0.95 * counts.frames and counts.width == (320 if kind == "video" else 0)
        bo.send_data(b"hello")
        await ana.until(lambda: [data.payload for data in ana.data] == [b"hello"])
        assert ana.data[0].was_encrypted == (format_ is not CLEAR)


@pytest.mark.interop
async def test_calls_of_every_format_through_a_relay() -> None:
    async with relay_process() as relay, asyncio.TaskGroup() as calls:
        for format_ in (CLEAR, LIVEKIT, SFRAME):
            calls.create_task(call(relay, format_, [codec for codec, its in CASES if its is format_]))


@pytest.mark.interop
async def test_who_has_another_key_decodes_nothing() -> None:
    async with (
        relay_process() as relay,
        Caller(relay.ws_url, relay.token("ana", attributes=SFRAME.attributes), SFRAME, publish=[record("vp8"), record("opus")]),
        Caller(relay.ws_url, relay.token("bo", attributes=SFRAME.attributes), LinkKey(bytes(32))) as bo,
    ):
        await bo.until(lambda: bo.received("ana", "video").frames >= 10 and bo.received("ana", "audio").frames >= 10)
        for kind in ("audio", "video"):
            counts = bo.received("ana", kind)
            assert counts.decoded == 0 and counts.failures == {"NotAuthentic": counts.frames}

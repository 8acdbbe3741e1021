"""Whose audio is taken with RED, and to whom it is offered."""

import pytest
from livekit.protocol import models, rtc

from tests.support.local_relay import PAID_SECRET
from tests.unit.signaling.descriptions import CHROMIUM, answer_to, recorded

AUDIO = models.TrackType.AUDIO
PAID = {"secret": PAID_SECRET, "key": "pkey"}
NONE, GCM = models.Encryption.Type.NONE, models.Encryption.Type.GCM


@pytest.mark.parametrize(
    ("who", "fields", "takes"),
    [
        ({}, {}, True),
        ({}, {"disable_red": True}, False),
        (PAID, {"encryption": GCM}, False),
        (PAID, {"encryption": GCM, "disable_red": True}, False),
    ],
    ids=["clear", "clear, turned off", "encrypted", "encrypted, turned off"],
)
async def test_red_is_for_clear_audio_that_wants_it(connect, who, fields, takes) -> None:
    ana, bo = await connect("ana", **who), await connect("bo", **who)
    ours = await bo.until("offer")
    await bo.send(answer=rtc.SessionDescription(type="answer", sdp=answer_to(ours.sdp), id=ours.id))
    track = (await ana.publish(CHROMIUM["audio"], type=AUDIO, **fields)).track
    await ana.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    answer = (await ana.until("answer")).sdp
    audio = next(part for part in answer.split("m=") if part.startswith("audio"))
    assert ("a=rtpmap:63 red/48000/2" in audio) is takes and "opus/48000/2" in audio
    assert audio.startswith("audio 9 UDP/TLS/RTP/SAVPF 63 111") is takes
    told = await bo.until("update", lambda u: any(t.sid == track.sid for p in u.participants for t in p.tracks))
    assert next(t.mime_type for p in told.participants for t in p.tracks if t.sid == track.sid) == "audio/opus"
    offered = (await bo.until("offer", lambda o: "m=audio" in o.sdp)).sdp
    assert ("a=fmtp:63 111/111" in offered) is takes and "a=rtpmap:111 opus/48000/2" in offered

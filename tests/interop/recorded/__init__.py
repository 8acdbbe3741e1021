"""A participant that sends recorded frames, sealed or clear, and decodes what it gets; for calls through a real relay.

    from tests.interop.recorded.caller import Caller
    from tests.interop.recorded.clips import record
    from tests.interop.recorded.formats import LinkKey, Passphrase

    async with Caller(relay.ws_url, token, Passphrase("correct horse"), publish=[record("h264"), record("opus")]) as ana:
        await ana.until(lambda: ana.received("bo", "video").decoded >= 30)
        ana.sent()                     # [Sent(codec, track_sid, frames, keyframes)]
        ana.received("bo", "video")    # Received(packets, frames, opened, repeated, decoded, failures, width)
        ana.send_data(b"hello")        # encrypted where the format has encrypted data
        ana.data                       # [(identity, topic, payload, was it encrypted)]

Formats: `CLEAR`, `Passphrase(text)` (LiveKit GCM: VP8, VP9, H264, Opus), `LinkKey(32 bytes)` (SFrame: VP8, VP9, AV1, Opus;
announces its key numbers on `veil.keys`). Everything of the format is relay/e2ee's; RTP, ICE and decoding are none of ours:
aioice, pylibsrtp, FFmpeg. Joins over /rtc (two transports), answers PLI by starting the clip anew, NACK from the last second.
`decoded` counts timestamps of which at least one picture came out, so a picture of several spatial layers counts once.
"""

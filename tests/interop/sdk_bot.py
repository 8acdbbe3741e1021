"""The Python `livekit` SDK in a process of its own, for tests of what signalling means: one JSON line per command in,
one per event out. `python sdk_bot.py URL TOKEN [PASSPHRASE]`; it leaves when its input ends.
"""

import array
import asyncio
import json
import os
import sys

from livekit import rtc

KINDS = {rtc.TrackKind.KIND_AUDIO: "audio", rtc.TrackKind.KIND_VIDEO: "video"}


def say(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


class Bot:
    def __init__(self):
        self.room = rtc.Room()
        self.tasks = []
        self.mine = {}
        on = self.room.on
        on("participant_connected", lambda p: say("joined", who=p.identity))
        on("participant_disconnected", lambda p: say("left", who=p.identity))
        on(
            "track_published",
            lambda pub, p: say("announced", who=p.identity, sid=pub.sid, encryption=pub.encryption_type),
        )
        on("track_unpublished", lambda pub, p: say("withdrawn", who=p.identity, sid=pub.sid))
        on("track_muted", lambda p, pub: say("muted", who=p.identity, sid=pub.sid))
        on("active_speakers_changed", lambda speakers: say("speakers", who=[p.identity for p in speakers]))
        on("track_subscribed", lambda track, pub, p: self.keep(self.consume(track, p.identity)))
        on("data_received", lambda d: say("data", who=d.participant and d.participant.identity, text=d.data.decode()))
        on("participant_metadata_changed", lambda p, old, new: say("metadata", who=p.identity, text=new))
        on("reconnecting", lambda: say("reconnecting"))
        on("reconnected", lambda: say("reconnected", sid=self.room.local_participant.sid))
        on("disconnected", lambda reason: say("disconnected", reason=int(reason)))

    def keep(self, work):
        self.tasks.append(asyncio.ensure_future(work))

    async def consume(self, track, who):
        stream = rtc.AudioStream(track) if track.kind == rtc.TrackKind.KIND_AUDIO else rtc.VideoStream(track)
        count = 0
        async for item in stream:
            count += 1
            # Silence is what a track gives before its first packet; a tone is what was sent.
            loud = KINDS[track.kind] == "video" or max(abs(n) for n in array.array("h", bytes(item.frame.data))) > 3000
            if loud and count >= 15:
                say("media", who=who, kind=KINDS[track.kind], sid=track.sid)
                count = -(1 << 60)

    async def publish(self, kind, muted=False):
        if kind == "audio":
            source = rtc.AudioSource(48_000, 1)
            track = rtc.LocalAudioTrack.create_audio_track("mic", source)
            options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
            self.keep(self.speak(source))
        else:
            source = rtc.VideoSource(320, 240)
            track = rtc.LocalVideoTrack.create_video_track("cam", source)
            options = rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False, video_codec=rtc.VideoCodec.VP8
            )
            self.keep(self.show(source))
        publication = await self.room.local_participant.publish_track(track, options)
        self.mine[kind] = publication
        return publication.sid

    async def wait_for_subscriber(self, kind):
        await asyncio.wait_for(self.mine[kind].wait_for_subscription(), 10)

    async def mute(self, kind):
        self.mine[kind].track.mute()

    async def unpublish(self, kind):
        await self.room.local_participant.unpublish_track(self.mine.pop(kind).sid)

    async def data(self, text, to=(), reliable=True):
        await self.room.local_participant.publish_data(
            text.encode(), reliable=reliable, destination_identities=list(to)
        )

    async def metadata(self, text):
        await self.room.local_participant.set_metadata(text)

    async def subscribe(self, who, wanted):
        for publication in self.room.remote_participants[who].track_publications.values():
            publication.set_subscribed(wanted)

    async def speak(self, source):
        wave = b"".join(int(12_000 if n % 100 < 50 else -12_000).to_bytes(2, "little", signed=True) for n in range(480))
        while True:
            await source.capture_frame(rtc.AudioFrame(wave, 48_000, 1, 480))

    async def show(self, source):
        count = 0
        while True:
            picture = bytes([count * 8 % 256]) * (320 * 240) + b"\x80" * (320 * 120)
            source.capture_frame(rtc.VideoFrame(320, 240, rtc.VideoBufferType.I420, picture))
            count += 1
            await asyncio.sleep(1 / 15)


async def main(url, token, passphrase=""):
    bot = Bot()
    options = rtc.RoomOptions(auto_subscribe=True)
    if passphrase:
        keys = rtc.KeyProviderOptions(shared_key=passphrase.encode())
        options.encryption = rtc.E2EEOptions(key_provider_options=keys)
    try:
        await asyncio.wait_for(bot.room.connect(url, token, options), 30)
    except Exception as error:
        say("refused", why=str(error))
        return
    others = sorted(bot.room.remote_participants)
    say("connected", sid=bot.room.local_participant.sid, room=await bot.room.sid, others=others)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *arguments = json.loads(line)
        try:
            say("done", what=command, result=await getattr(bot, command)(*arguments))
        except Exception as error:
            say("failed", what=command, why=f"{type(error).__name__}: {error}")
    await bot.room.disconnect()
    for task in bot.tasks:
        task.cancel()
    say("gone")


asyncio.run(main(*sys.argv[1:]))
# It has left the room, so what this tests is over. The interpreter is not taken down: a native thread of the SDK that
# calls into it just then is ended by CPython, which Rust answers with SIGABRT (seen without any server, 2 of 320 ends).
os._exit(0)

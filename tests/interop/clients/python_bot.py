"""The Python `livekit` SDK as a child process: commands come as JSON lines, answers go back as JSON lines.

Runs in a virtual environment of its own, so it imports nothing of this project. Picture and sound are made up: a
moving gradient and a 440 Hz tone.
"""

import asyncio
import json
import math
import struct
import sys
import time

from livekit import rtc

RATE_HZ = 48_000
CHUNK_SAMPLES = 480


class Bot:
    def __init__(self):
        self.room = None
        self.seen = []
        self.tasks = []
        self.readers = {}
        self.mic = None
        self.cam = None
        self.watched, self.longest_gap_s, self.last_frame_s = "", 0.0, 0.0
        self.streaming = {}

    def note(self, what, identity, detail=""):
        self.seen.append({"at_ms": time.time() * 1000, "what": what, "identity": identity or "", "detail": detail})

    async def join(self, url, token, passphrase):
        self.room, self.seen, self.tasks, self.mic, self.cam = rtc.Room(), [], [], None, None
        room = self.room
        room.on("participant_connected", lambda p: self.note("joined", p.identity))
        room.on("participant_disconnected", lambda p: self.note("left", p.identity))
        room.on("track_muted", lambda p, pub: self.note("muted", p.identity, kind(pub)))
        room.on("track_unmuted", lambda p, pub: self.note("unmuted", p.identity, kind(pub)))
        room.on("data_received", lambda d: self.note("data", d.participant and d.participant.identity, d.data.decode()))
        # A session that goes on is told here like one that begins anew; it has the same sid.
        room.on("reconnecting", lambda: self.note("reconnecting", ""))
        room.on("reconnected", lambda: self.note("back", "", room.local_participant.sid))
        room.on("disconnected", lambda reason: self.note("disconnected", "", str(int(reason))))
        room.on("track_subscribed", lambda track, pub, p: self.keep(self.consume(track, p.identity)))
        options = rtc.RoomOptions(auto_subscribe=True)
        if passphrase:
            keys = rtc.KeyProviderOptions(shared_key=passphrase.encode())
            options.encryption = rtc.E2EEOptions(key_provider_options=keys)
        await asyncio.wait_for(room.connect(url, token, options), 60)
        for participant in room.remote_participants.values():
            self.note("joined", participant.identity)

    def keep(self, coroutine):
        self.tasks.append(asyncio.ensure_future(coroutine))

    async def consume(self, track, identity):
        """Read the track to its end: the SDK decodes only what somebody reads."""
        is_audio = track.kind == rtc.TrackKind.KIND_AUDIO
        stream = rtc.AudioStream(track) if is_audio else rtc.VideoStream(track)
        async for _ in stream:
            if not is_audio and identity == self.watched:
                now = time.monotonic()
                self.longest_gap_s = max(self.longest_gap_s, now - self.last_frame_s)
                self.last_frame_s = now

    async def watch(self, identity):
        self.watched, self.longest_gap_s, self.last_frame_s = identity, 0.0, time.monotonic()

    async def longest_gap_ms(self):
        return max(self.longest_gap_s, time.monotonic() - self.last_frame_s) * 1000

    async def stream(self, prefix, count, per_s):
        self.streaming = {"sent": 0, "problem": "", "done": False}
        self.keep(self.send_stream(prefix, count, per_s, self.streaming))

    async def streamed(self):
        return self.streaming

    async def send_stream(self, prefix, count, per_s, said):
        begun = time.monotonic()
        try:
            for number in range(count):
                await asyncio.sleep(max(0.0, begun + number / per_s - time.monotonic()))
                await self.room.local_participant.publish_data(f"{prefix}{number}".encode(), reliable=True)
                said["sent"] += 1
        except Exception as error:
            said["problem"] = f"{type(error).__name__}: {error}"
        said["done"] = True

    async def publish(self, audio, video, width, height, fps):
        if audio:
            source = rtc.AudioSource(RATE_HZ, 1)
            self.mic = rtc.LocalAudioTrack.create_audio_track("mic", source)
            options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
            await self.room.local_participant.publish_track(self.mic, options)
            self.keep(speak(source))
        if video:
            source = rtc.VideoSource(width, height)
            self.cam = rtc.LocalVideoTrack.create_video_track("cam", source)
            options = rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_CAMERA, simulcast=True, video_codec=rtc.VideoCodec.VP8
            )
            await self.room.local_participant.publish_track(self.cam, options)
            self.keep(show(source, width, height, fps))

    async def send_data(self, text):
        await self.room.local_participant.publish_data(("r:" + text).encode(), reliable=True)
        await self.room.local_participant.publish_data(("l:" + text).encode(), reliable=False)

    async def mute(self, muted):
        at = time.time() * 1000
        if muted:
            self.mic.mute()
        else:
            self.mic.unmute()
        return at

    async def sent(self):
        found = []
        for item in await self.cam.get_stats():
            if item.WhichOneof("stats") == "outbound_rtp":
                out = item.outbound_rtp.outbound
                found.append({"rid": out.rid, "width": out.frame_width, "frames": out.frames_sent})
        return found

    async def audio_packets_sent(self):
        outbound = [
            item.outbound_rtp for item in await self.mic.get_stats() if item.WhichOneof("stats") == "outbound_rtp"
        ]
        return sum(item.sent.packets_sent for item in outbound)

    async def state(self):
        received = {}
        for participant in list(self.room.remote_participants.values()):
            mine = {"audio_packets": 0, "audio_energy": 0.0, "frames_decoded": 0, "width": 0}
            for publication in list(participant.track_publications.values()):
                if publication.track is None:
                    continue
                for item in await publication.track.get_stats():
                    if item.WhichOneof("stats") != "inbound_rtp":
                        continue
                    inbound = item.inbound_rtp.inbound
                    if publication.kind == rtc.TrackKind.KIND_AUDIO:
                        mine["audio_packets"] += item.inbound_rtp.received.packets_received
                        mine["audio_energy"] += inbound.total_audio_energy
                    else:
                        mine["frames_decoded"] += inbound.frames_decoded
                        mine["width"] = inbound.frame_width
            received[participant.identity] = mine
        connected = self.room.connection_state == rtc.ConnectionState.CONN_CONNECTED
        return {"connection": "connected" if connected else "disconnected", "received": received, "seen": self.seen}

    async def want_quality(self, identity, quality):
        wanted = {
            "low": rtc.VideoQuality.VIDEO_QUALITY_LOW,
            "medium": rtc.VideoQuality.VIDEO_QUALITY_MEDIUM,
            "high": rtc.VideoQuality.VIDEO_QUALITY_HIGH,
        }[quality]
        for publication in self.room.remote_participants[identity].track_publications.values():
            if publication.kind == rtc.TrackKind.KIND_VIDEO:
                publication.set_video_quality(wanted)

    async def leave(self):
        at = time.time() * 1000
        await self.room.disconnect()
        for task in self.tasks:
            task.cancel()
        return at


def kind(publication):
    return "audio" if publication.kind == rtc.TrackKind.KIND_AUDIO else "video"


async def speak(source):
    """Feed a tone; the source itself waits for real time."""
    phase = 0
    while True:
        chunk = [int(12_000 * math.sin(2 * math.pi * 440 * (phase + n) / RATE_HZ)) for n in range(CHUNK_SAMPLES)]
        phase += CHUNK_SAMPLES
        await source.capture_frame(rtc.AudioFrame(struct.pack(f"<{CHUNK_SAMPLES}h", *chunk), RATE_HZ, 1, CHUNK_SAMPLES))


async def show(source, width, height, fps):
    """Feed a gradient that moves by 8 pixels a frame, on the wall clock so that lateness does not add up."""
    row = bytes(16 + (n * 219 // 256) for n in range(256)) * (width // 256 + 2)
    grey = b"\x80" * (width * height // 2)
    loop = asyncio.get_running_loop()
    start, count = loop.time(), 0
    while True:
        shift = count * 8 % 256
        luma = row[shift : shift + width] * height
        source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, luma + grey))
        count += 1
        await asyncio.sleep(max(0.0, start + count / fps - loop.time()))


async def main():
    bot = Bot()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        try:
            answer = {"id": command["id"], "result": await getattr(bot, command["do"])(*command["with"])}
        except Exception as error:
            answer = {"id": command["id"], "error": f"{type(error).__name__}: {error}"}
        sys.stdout.write("@" + json.dumps(answer) + "\n")
        sys.stdout.flush()


asyncio.run(main())

"""Records what real clients write into tests/vectors/sdp: `python -m tests.support.capture_sdp`.

Offers of Chromium, Firefox and LiveKit's native SDK (through a relay of ours, with a proxy in between that reads the
signalling), and their answers to the offers of subscriber_scenario. Run again when a client's major version changes;
the expectations beside the vectors say what must still hold.
"""

import asyncio
from pathlib import Path

import aiohttp
from aiohttp import web
from livekit import rtc
from livekit.protocol.rtc import SignalRequest

from relay.sdp import PublisherNegotiation, SubscriberNegotiation
from tests.support.browsers import blank_site, chromium, firefox
from tests.support.relay_process import relay_process
from tests.support.subscriber_scenario import LOCAL, rounds

VECTORS = Path(__file__).parents[1] / "vectors" / "sdp"

# Each makes a connection and returns its offers, by suffix of the vector's name.
CAMERA_AND_MICROPHONE = """async () => {
  const media = await navigator.mediaDevices.getUserMedia({audio: true, video: {width: 1280, height: 720}});
  const pc = new RTCPeerConnection();
  pc.addTransceiver(media.getAudioTracks()[0], {direction: 'sendonly', streams: [media]});
  const video = pc.addTransceiver(media.getVideoTracks()[0], {direction: 'sendonly', streams: [media], sendEncodings: [
    {rid: 'q', scaleResolutionDownBy: 4}, {rid: 'h', scaleResolutionDownBy: 2}, {rid: 'f'}]});
  pc.createDataChannel('_reliable');
  await pc.setLocalDescription();
  return {simulcast: pc.localDescription.sdp};
}"""

PLACEHOLDERS = """async () => {
  const pc = new RTCPeerConnection();
  for (let i = 0; i < 3; i++) pc.addTransceiver('audio', {direction: 'recvonly'});
  for (let i = 0; i < 3; i++) pc.addTransceiver('video', {direction: 'recvonly'});
  pc.createDataChannel('_reliable');
  return {placeholders: (await pc.createOffer()).sdp};
}"""

DATA_ONLY = """async () => {
  const pc = new RTCPeerConnection();
  pc.createDataChannel('_reliable');
  return {data_only: (await pc.createOffer()).sdp};
}"""

SENDRECV = """async () => {
  const media = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
  const pc = new RTCPeerConnection();
  for (const track of media.getTracks()) pc.addTrack(track, media);
  return {sendrecv: (await pc.createOffer()).sdp};
}"""

EVERY_EXTENSION = """async () => {
  const media = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
  const pc = new RTCPeerConnection();
  for (const track of media.getTracks()) {
    const transceiver = pc.addTransceiver(track, {direction: 'sendonly'});
    const wanted = transceiver.getHeaderExtensionsToNegotiate();
    for (const extension of wanted) extension.direction = 'sendrecv';
    transceiver.setHeaderExtensionsToNegotiate(wanted);
  }
  return {every_extension: (await pc.createOffer()).sdp};
}"""

CODEC_AND_LAYERS = """async () => {
  const media = await navigator.mediaDevices.getUserMedia({video: true});
  const pc = new RTCPeerConnection();
  const transceiver = pc.addTransceiver(media.getVideoTracks()[0],
    {direction: 'sendonly', streams: [media], sendEncodings: [{scalabilityMode: 'L3T3_KEY'}]});
  const all = RTCRtpReceiver.getCapabilities('video').codecs;
  transceiver.setCodecPreferences([...all.filter(c => c.mimeType === 'video/VP9'),
                                   ...all.filter(c => c.mimeType !== 'video/VP9')]);
  return {vp9_first: (await pc.createOffer()).sdp};
}"""


# A publisher's life after its first answer: one track goes silent, one is stopped, its place is taken again.
TAKE_ANSWER = "async (sdp) => { await pc.setRemoteDescription({type: 'answer', sdp}); }"
PUBLISHER_LIFE = {
    "first": """async () => {
      window.pc = new RTCPeerConnection();
      const media = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
      window.audio = pc.addTransceiver(media.getAudioTracks()[0], {direction: 'sendonly', streams: [media]});
      window.video = pc.addTransceiver(media.getVideoTracks()[0], {direction: 'sendonly', streams: [media]});
      await pc.setLocalDescription();
      return pc.localDescription.sdp;
    }""",
    "silent": """async () => {
      audio.direction = 'inactive';
      await pc.setLocalDescription();
      return pc.localDescription.sdp;
    }""",
    "stopped": """async () => {
      video.stop();
      await pc.setLocalDescription();
      return pc.localDescription.sdp;
    }""",
    "recycled": """async () => {
      pc.addTransceiver('video', {direction: 'sendonly'});
      await pc.setLocalDescription();
      return pc.localDescription.sdp;
    }""",
    "restarted": """async () => {
      pc.restartIce();
      await pc.setLocalDescription();
      return pc.localDescription.sdp;
    }""",
}

ANSWER = """async (sdp) => {
  window.subscriber ??= new RTCPeerConnection();
  await subscriber.setRemoteDescription({type: 'offer', sdp});
  await subscriber.setLocalDescription();
  return subscriber.localDescription.sdp;
}"""


def keep(name: str, sdp: str) -> None:
    (VECTORS / f"{name}.sdp").write_bytes(sdp.encode())


async def capture(browser, scripts: list[str]) -> None:
    async with blank_site() as url, browser() as page:
        await page.goto(url)
        for script in scripts:
            for name, sdp in (await page.evaluate(script)).items():
                keep(f"{page.name}_{name}", sdp)
        publisher = PublisherNegotiation()
        for number, (name, script) in enumerate(PUBLISHER_LIFE.items(), 1):
            offer = await page.evaluate(script)
            keep(f"{page.name}_life_{number}_{name}", offer)
            await page.evaluate(TAKE_ANSWER, publisher.answer(offer, LOCAL).sdp)
        subscriber = SubscriberNegotiation()
        for number, offer in enumerate(rounds(subscriber), 1):
            answer = await page.evaluate(ANSWER, offer.sdp)
            keep(f"{page.name}_answer_{number}", answer)
            subscriber.accept(answer)


async def capture_native() -> None:
    offers: list[str] = []
    async with relay_process() as relay, aiohttp.ClientSession() as session:

        async def proxy(request: web.Request) -> web.WebSocketResponse:
            client = web.WebSocketResponse()
            headers = {"Authorization": request.headers["Authorization"]}
            async with session.ws_connect(f"{relay.ws_url}{request.rel_url}", headers=headers) as upstream:
                await client.prepare(request)

                async def down() -> None:
                    async for message in upstream:
                        await client.send_bytes(message.data)

                task = asyncio.create_task(down())
                async for message in client:
                    request_message = SignalRequest.FromString(message.data)
                    if request_message.HasField("offer"):
                        offers.append(request_message.offer.sdp)
                    await upstream.send_bytes(message.data)
                task.cancel()
            return client

        app = web.Application()
        app.router.add_get("/rtc", proxy)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        room = rtc.Room()
        await room.connect(f"ws://127.0.0.1:{runner.addresses[0][1]}", relay.token("native"))
        audio = rtc.LocalAudioTrack.create_audio_track("microphone", rtc.AudioSource(48_000, 1))
        video = rtc.LocalVideoTrack.create_video_track("camera", rtc.VideoSource(1280, 720))
        await room.local_participant.publish_track(audio)
        published = await room.local_participant.publish_track(
            video, rtc.TrackPublishOptions(simulcast=True, video_codec=rtc.VideoCodec.VP8)
        )
        # Time for the offers: the SDK puts what happens within some 100 ms into one.
        await asyncio.sleep(1)
        await room.local_participant.unpublish_track(published.sid)
        await asyncio.sleep(1)
        await room.disconnect()
        await runner.cleanup()
    for number, (name, offer) in enumerate(zip(("first", "audio", "simulcast", "stopped"), offers, strict=True), 1):
        keep(f"native_life_{number}_{name}", offer)


async def main() -> None:
    shared = [CAMERA_AND_MICROPHONE, PLACEHOLDERS, DATA_ONLY, SENDRECV, CODEC_AND_LAYERS]
    await capture(chromium, [*shared, EVERY_EXTENSION])
    await capture(firefox, shared)
    await capture_native()


if __name__ == "__main__":
    asyncio.run(main())

"""Records the offers real browsers make into tests/vectors/sdp: `python -m tests.support.capture_sdp`.

Run again when a browser's major version changes; the expectations beside the vectors say what must still hold.
"""

import asyncio
from pathlib import Path

from tests.support.browsers import blank_site, chromium, firefox

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


async def capture(browser, scripts: list[str]) -> None:
    async with blank_site() as url, browser() as page:
        await page.goto(url)
        for script in scripts:
            for name, sdp in (await page.evaluate(script)).items():
                (VECTORS / f"{page.name}_{name}.sdp").write_bytes(sdp.encode())


async def main() -> None:
    shared = [CAMERA_AND_MICROPHONE, PLACEHOLDERS, DATA_ONLY, SENDRECV, CODEC_AND_LAYERS]
    await capture(chromium, [*shared, EVERY_EXTENSION])
    await capture(firefox, shared)


if __name__ == "__main__":
    asyncio.run(main())

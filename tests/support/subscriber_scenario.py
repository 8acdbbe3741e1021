"""One subscriber's connection whose answers were recorded from real clients: the same offers, made again."""

from collections.abc import Iterator

from relay.sdp import Codec, LocalTransport, Offer, SentTrack, SubscriberNegotiation

LOCAL = LocalTransport(
    "relay123", "passwordpasswordpassword", "sha-256 " + ":".join(["AB"] * 32), (("127.0.0.1", 7882), ("::1", 7882))
)
OPUS = Codec(109, "opus", 48_000, None, 2)
RED = Codec(63, "red", 48_000, None, 2, "109/109")
VP8 = Codec(120, "vp8", 90_000, 124)
VP9 = Codec(121, "vp9", 90_000, 125)
AV1 = Codec(99, "av1", 90_000, 100)
H264 = Codec(97, "h264", 90_000, 98, 1, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")


def add(subscriber: SubscriberNegotiation, number: int, *codecs: Codec, stereo: bool = False) -> str:
    """Add a track with SSRCs that follow from its number."""
    return subscriber.add(sent(number, *codecs, stereo=stereo))


def sent(number: int, *codecs: Codec, stereo: bool = False) -> SentTrack:
    """Return a track with SSRCs that follow from its number."""
    return SentTrack(
        codecs[0].kind,
        codecs,
        stream_id=f"PA_ada|TR_{number}",
        track_id=f"TR_{number}",
        ssrc=1000 + 2 * number,
        rtx_ssrc=1001 + 2 * number if codecs[0].kind == "video" else None,
        cname="cname",
        stereo=stereo,
    )


def rounds(subscriber: SubscriberNegotiation) -> Iterator[Offer]:
    """Yield three offers, each to be answered before the next: data alone, six tracks, then one gone and one new."""
    yield subscriber.offer(LOCAL)
    add(subscriber, 1, OPUS)
    add(subscriber, 2, RED, OPUS)
    add(subscriber, 3, OPUS, stereo=True)
    add(subscriber, 4, VP8)
    add(subscriber, 5, H264)
    add(subscriber, 6, AV1)
    yield subscriber.offer(LOCAL)
    subscriber.remove("4")
    add(subscriber, 7, VP9)
    yield subscriber.offer(LOCAL)

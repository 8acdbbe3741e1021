"""RTP header extensions: which we understand, which we accept from a publisher, which we offer to a subscriber.

RFC 8285. Ids are 1..14 on every transport: 15 is reserved, and Firefox refuses a description with a larger one.
What an answer leaves out Chromium does not offer again, so a section is answered as if everything were used.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from relay.sdp.grammar import Attribute
from relay.sdp.media import DIRECTIONS, REVERSED, Extmap

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
ABS_CAPTURE_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
DEPENDENCY_DESCRIPTOR = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
VIDEO_ORIENTATION = "urn:3gpp:video-orientation"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

MAX_ID = 14

ACCEPTED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "audio": frozenset({MID, AUDIO_LEVEL, TRANSPORT_CC, ABS_SEND_TIME, ABS_CAPTURE_TIME}),
        "video": frozenset(
            {
                MID,
                RID,
                REPAIRED_RID,
                TRANSPORT_CC,
                ABS_SEND_TIME,
                ABS_CAPTURE_TIME,
                DEPENDENCY_DESCRIPTOR,
                VIDEO_ORIENTATION,
            }
        ),
    }
)

# Ids we give in offers, one per URI over the bundle (RFC 9143 wants an id to mean the same everywhere).
OFFERED_IDS: Mapping[str, int] = MappingProxyType(
    {
        MID: 1,
        AUDIO_LEVEL: 2,
        ABS_CAPTURE_TIME: 3,
        DEPENDENCY_DESCRIPTOR: 4,
        VIDEO_ORIENTATION: 5,
        PLAYOUT_DELAY: 6,
        TRANSPORT_CC: 7,
    }
)
OFFERED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "audio": (MID, AUDIO_LEVEL, ABS_CAPTURE_TIME),
        "video": (MID, ABS_CAPTURE_TIME, DEPENDENCY_DESCRIPTOR, VIDEO_ORIENTATION, PLAYOUT_DELAY, TRANSPORT_CC),
    }
)


def accept_extmaps(
    kind: str, offered: Iterable[Extmap], bundle: dict[str, int], *, receives: bool = False
) -> list[Extmap]:
    """Return what of a client's extensions the answer has, in its order, and enter it into `bundle`.

    One id per URI and one URI per id over the whole bundle; the first of a conflict wins. An id above 14 and a URI with
    parameters we do not know are left out, and so is one the client only wants to receive, unless it `receives` in
    this section: then what we send subscribers is taken too. Absolute send time is taken only without transport-wide
    congestion control, which says the same and more in fewer bytes.
    """
    known = ACCEPTED[kind].union(OFFERED[kind]) if receives else ACCEPTED[kind]
    directions = DIRECTIONS[:3] if receives else DIRECTIONS[:2]
    usable = [
        extmap
        for extmap in offered
        if extmap.uri in known
        and 1 <= extmap.id <= MAX_ID
        and not extmap.has_attributes
        and extmap.direction in directions
    ]
    has_transport_cc = any(extmap.uri == TRANSPORT_CC for extmap in usable)
    accepted = []
    for extmap in usable:
        if extmap.uri == ABS_SEND_TIME and has_transport_cc:
            continue
        if bundle.get(extmap.uri, extmap.id) != extmap.id:
            continue
        if any(extmap.id == taken and extmap.uri != uri for uri, taken in bundle.items()):
            continue
        if any(extmap.uri == other.uri for other in accepted):
            continue
        bundle[extmap.uri] = extmap.id
        accepted.append(extmap)
    return accepted


def answered_extmap(extmap: Extmap) -> Attribute:
    """Return the answer's line for an offered extension.

    A direction is turned round: Firefox offers RID as `/sendonly` and drops it silently when that comes back.
    """
    direction = f"/{REVERSED[extmap.direction]}" if extmap.has_direction else ""
    return Attribute("extmap", f"{extmap.id}{direction} {extmap.uri}")


def agreed_extensions(answered: Iterable[Extmap]) -> dict[str, int]:
    """Return those of our offered extensions that a subscriber's section kept with the id we gave them."""
    return {
        extmap.uri: extmap.id
        for extmap in answered
        if OFFERED_IDS.get(extmap.uri) == extmap.id and extmap.direction in ("sendrecv", "recvonly")
    }

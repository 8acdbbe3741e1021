"""Numbers the payload formats we offer: one payload type for one format, the same in every section of every offer.

RFC 8859 (one fmtp per payload type in a bundle), RFC 5761 §4 (which numbers are free beside RTCP). The formats we
offer are few, so a table does it; the usual numbers are Chromium's, so that a description reads as people expect. What
a publisher wrote into its format lines goes no further than the choice of a row.
"""

from collections.abc import Sequence
from types import MappingProxyType

from relay.sdp.codecs import h264_key, opus_parameters
from relay.sdp.facts import Codec

_VIDEO_CLOCK_HZ = 90_000

# sprop-stereo says what we send; LiveKit's clients open both channels where they find it.
_OPUS = MappingProxyType(
    {
        False: Codec(111, "opus", 48_000, None, 2, opus_parameters(stereo=False, dtx=False)),
        True: Codec(110, "opus", 48_000, None, 2, opus_parameters(stereo=True, dtx=False) + ";sprop-stereo=1"),
    }
)
_RED = MappingProxyType(
    {
        False: Codec(63, "red", 48_000, None, 2, "111/111"),
        True: Codec(62, "red", 48_000, None, 2, "110/110"),
    }
)
_VP8 = Codec(96, "vp8", _VIDEO_CLOCK_HZ, 97)
_VP9 = Codec(98, "vp9", _VIDEO_CLOCK_HZ, 99, 1, "profile-id=0")
_AV1 = Codec(45, "av1", _VIDEO_CLOCK_HZ, 46, 1, "level-idx=5;profile=0;tier=0")


def _h264(payload_type: int, mode: int, profile: str) -> Codec:
    # Level 3.1, as browsers say; with asymmetry allowed it bounds neither side (RFC 6184 §8.2.2).
    parameters = f"level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}1f"
    return Codec(payload_type, "h264", _VIDEO_CLOCK_HZ, payload_type + 1, 1, parameters)


_H264 = MappingProxyType(
    {
        h264_key(codec.parameters): codec
        for codec in (
            _h264(102, 1, "4200"),
            _h264(104, 0, "4200"),
            _h264(106, 1, "42e0"),
            _h264(108, 0, "42e0"),
            _h264(112, 1, "4d00"),
            _h264(114, 0, "4d00"),
        )
    }
)


def as_offered(codecs: Sequence[Codec], *, stereo: bool) -> tuple[Codec, ...]:
    """Return a publication's codecs as we offer them, in their order, without repetition.

    RED comes with the Opus it carries, or not at all. Errors: ValueError for an H.264 format we do not forward.
    """
    has_opus = any(codec.name == "opus" for codec in codecs)
    rows = (_row(codec, stereo) for codec in codecs if codec.name != "red" or has_opus)
    return tuple(dict.fromkeys(rows))


def _row(codec: Codec, stereo: bool) -> Codec:
    match codec.name:
        case "opus":
            return _OPUS[stereo]
        case "red":
            return _RED[stereo]
        case "vp8":
            return _VP8
        case "vp9":
            return _VP9
        case "av1":
            return _AV1
        case "h264" if (key := h264_key(codec.parameters)) in _H264:
            return _H264[key]
    raise ValueError(f"not a format we forward: {codec.name} {codec.parameters}")

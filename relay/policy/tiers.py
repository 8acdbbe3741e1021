"""Whose a room is, and which tier rules it.

A room belongs to (customer, room name): the API key of a token names the customer, so the same room name means
another room for another customer. The room's customer decides the tier; guests inherit it.

Tiers have an order, by what they promise: a tier that requires end-to-end encryption is stricter than one that allows
it, and that one stricter than one that refuses it. Tiers of the same word are equally strict, whatever their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.errors import Refused

DEFAULT_TIER = "free"
STRICTNESS = ("refused", "allowed", "required")
PROFILES = ("none", "shared-passphrase", "group")
FRAME_FORMATS = ("livekit_gcm", "sframe")
# What the frames of a room without end-to-end encryption are in.
CLEAR = "clear"
# The video that can be published in frames of each format, in the order clients are told of it: VP8 comes before H264,
# as Flutter's client expects. LiveKit's format has no AV1; SFrame hides what H264's packetisation has to read.
VIDEO_CODECS = {
    CLEAR: ("vp8", "h264", "vp9", "av1"),
    "livekit_gcm": ("vp8", "h264", "vp9"),
    "sframe": ("vp8", "vp9", "av1"),
}
# What may be done with the media of a call by the operator's own programs. All but the last need frames that the relay
# can read, so in an encrypted room they never start, whatever the tier lists.
FEATURES = ("recording", "captions", "thumbnails", "sealed_recording")


@dataclass(frozen=True, slots=True, order=True)
class RoomKey:
    """The full name of a room."""

    customer: str
    name: str


@dataclass(frozen=True, slots=True)
class TierLimits:
    """Bounds of one tier; 0 = those of the relay, which also bound these."""

    participants: int = 0
    publications: int = 0
    bits_per_s: int = 0
    # Whose pictures and sounds are forwarded in a large room (relay.quality.stage).
    cameras_forwarded: int = 0
    microphones_forwarded: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    """The rules of one tier. `e2ee` is refused, allowed or required; an empty profile means the one that fits it."""

    name: str = DEFAULT_TIER
    e2ee: str = "refused"
    e2ee_profile: str = ""
    frame_format: str = FRAME_FORMATS[0]
    features: frozenset[str] = frozenset()
    auto_features: frozenset[str] = frozenset()
    limits: TierLimits = TierLimits()

    @property
    def strictness(self) -> int:
        """How much the tier promises; comparable between tiers."""
        return STRICTNESS.index(self.e2ee)

    @property
    def default_profile(self) -> str:
        """The profile of a room whose creator asks for none in particular."""
        return self.e2ee_profile or ("shared-passphrase" if self.e2ee == "required" else "none")

    def contradiction(self, profile: str, frame_format: str) -> str | None:
        """Return why no room of this tier can be of this kind, None when it can."""
        if profile == "none" and self.e2ee == "required":
            return f"Calls of the {self.name} tier are end-to-end encrypted: the profile none cannot be had."
        if profile != "none" and self.e2ee == "refused":
            return f"Calls of the {self.name} tier are not end-to-end encrypted: the profile {profile} cannot be had."
        if profile == "group" and frame_format != "sframe":
            return (
                f"This call of the {self.name} tier cannot have group keys with frames in {frame_format}: "
                "they come in sframe alone."
            )
        return None


@dataclass(frozen=True, slots=True)
class TierTable:
    """Tiers by customer and by name; a customer that the table does not name is in the default tier."""

    by_customer: Mapping[str, Tier]
    default: Tier = Tier()
    by_name: Mapping[str, Tier] = field(default_factory=dict)

    def tier_of(self, room: RoomKey) -> Tier:
        """Return the tier that rules this room."""
        return self.by_customer.get(room.customer, self.default)

    def named(self, name: str) -> Tier:
        """Return the tier of that name.   Errors: Refused 403: a demand that nobody understands is not met."""
        tier = self.by_name.get(name)
        if tier is None:
            raise Refused(403, f"The token demands a call of the tier {name!r}, which this server does not have.")
        return tier


def least(ours: int, of_tier: int) -> int:
    """Return the lower one of two bounds, of which 0 is none."""
    return min(ours, of_tier) if ours and of_tier else ours or of_tier

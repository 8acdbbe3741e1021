"""What kind of room it is: tier, profile and frame format, bound at its creation and never changed.

The creator's token may choose (attributes `veil.e2ee_profile`, `veil.frame_format`), else the tier's defaults count.
Everybody who comes later inherits; a token that demands something else, or a stricter tier than the room's
(`veil.min_tier`), does not get in. All demands fail closed: what cannot be understood is refused, never left out.

Names of attributes that begin with `veil.` are the relay's: clients read the terms there, and cannot write them.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relay.errors import Refused
from relay.policy.tiers import CLEAR, FRAME_FORMATS, PROFILES, Tier, TierTable

PREFIX = "veil."
MIN_TIER = "veil.min_tier"
PROFILE = "veil.e2ee_profile"
FRAME_FORMAT = "veil.frame_format"
TIER = "veil.tier"
_CHOICES = {PROFILE: PROFILES, FRAME_FORMAT: FRAME_FORMATS}
# Nu, izhitsa, small capital V; Cyrillic ye; dotless i, iota, Cyrillic i; palochka, one, bar, click; dots; blanks that are letters.
_LOOKALIKES = str.maketrans(
    "\u03bd\u0475\u1d20\u0435\u212e\u0131\u03b9\u0456\u04cf\u04c01|\u01c0\u3002\u00b7\u22c5\u2219\u06d4",
    "vvveeiiilllll.....",
    "\u115f\u1160\u3164\uffa0\u2800",
)
# Characters at a name's beginning that may hide the prefix.
_LOOKED_AT = 64
# With a capital i in the place of the l, which few fonts tell apart.
_CAPITAL_I = "veii."
# A tier's name is not longer, so what is longer names none.
_MAX_CHARACTERS = 64


def is_reserved(name: str) -> bool:
    """True when this attribute's name is the relay's, or would be read as such.

    Compared as people see it: without case, width, accents, blanks and invisible characters, and with the letters of other
    scripts that look like those of the prefix. It takes no longer for a long name, since clients send names with every packet.
    """
    first = name[:1]
    if first.isascii() and first.isalnum() and first not in "vV":
        return False
    plain = unicodedata.normalize("NFKD", name[:_LOOKED_AT].translate(_LOOKALIKES).casefold()).translate(_LOOKALIKES)
    seen = "".join(c for c in plain if unicodedata.category(c)[0] not in "CMZ").casefold()
    if len(name) > _LOOKED_AT and len(seen) < len(PREFIX):
        # It begins with more invisible characters than a name needs.
        return True
    return seen.startswith((PREFIX, _CAPITAL_I))


@dataclass(frozen=True, slots=True)
class Demands:
    """What one token asks of its room; None asks nothing."""

    min_tier: str | None = None
    e2ee_profile: str | None = None
    frame_format: str | None = None

    def attributes(self) -> dict[str, str]:
        """Return the token attributes that say this."""
        pairs = ((MIN_TIER, self.min_tier), (PROFILE, self.e2ee_profile), (FRAME_FORMAT, self.frame_format))
        return {name: value for name, value in pairs if value is not None}


NO_DEMANDS = Demands()


def read_demands(attributes: Iterable[tuple[str, str]], what: str = "token") -> Demands:
    """Return what the reserved ones of these attributes demand.

    Errors: Refused 400 for a reserved name that is no demand (a misspelt demand must not be lost) or a wrong value.
    """
    found: dict[str, str] = {}
    for name, value in attributes:
        if not is_reserved(name):
            continue
        if name not in (MIN_TIER, PROFILE, FRAME_FORMAT):
            raise Refused(
                400,
                f"The {what} has the attribute {name[:64]!r}: names that begin with {PREFIX} are the server's, "
                f"but for {MIN_TIER}, {PROFILE} and {FRAME_FORMAT}.",
            )
        allowed = _CHOICES.get(name)
        if allowed is not None and value not in allowed:
            raise Refused(400, f"The {what}'s {name} is {value[:64]!r}; there are {', '.join(allowed)}.")
        if not 0 < len(value) <= _MAX_CHARACTERS:
            raise Refused(400, f"The {what}'s {name} is no tier's name.")
        found[name] = value
    return Demands(found.get(MIN_TIER), found.get(PROFILE), found.get(FRAME_FORMAT))


def without_reserved(attributes: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the attributes that are not the relay's."""
    return tuple((name, value) for name, value in attributes if not is_reserved(name))


@dataclass(frozen=True, slots=True)
class Terms:
    """The kind of one room. `frame_format` means nothing where the profile is none."""

    tier: Tier
    e2ee_profile: str
    frame_format: str

    @property
    def is_encrypted(self) -> bool:
        """True when only encrypted publications and data may be sent."""
        return self.e2ee_profile != "none"

    @property
    def frames(self) -> str:
        """The format of every frame in this room: clear, livekit_gcm or sframe."""
        return self.frame_format if self.is_encrypted else CLEAR

    @property
    def attributes(self) -> Mapping[str, str]:
        """What everybody reads of it in each participant's attributes."""
        shown = {TIER: self.tier.name, PROFILE: self.e2ee_profile}
        return shown | {FRAME_FORMAT: self.frame_format} if self.is_encrypted else shown

    def refusal(self, frames: str) -> str | None:
        """Return why a track with such frames (clear, livekit_gcm, sframe) may not be published, None when it may."""
        if frames == self.frames:
            return None
        whose = "This call" if self.tier.e2ee == "allowed" else "Calls"
        verb = "is" if self.tier.e2ee == "allowed" else "are"
        of = f"{whose} of the {self.tier.name} tier {verb}"
        if not self.is_encrypted:
            return f"{of} not end-to-end encrypted: turn encryption off to publish."
        if frames == CLEAR:
            return f"{of} end-to-end encrypted: turn encryption on to publish."
        return (
            f"This call of the {self.tier.name} tier is encrypted in the format {self.frame_format}: "
            f"a track in {frames} cannot be published."
        )

    def data_refusal(self, *, is_encrypted: bool) -> str | None:
        """Return why data messages of this kind go to nobody, None when they may go."""
        if is_encrypted == self.is_encrypted:
            return None
        if is_encrypted:
            return f"This call of the {self.tier.name} tier is not end-to-end encrypted: encrypted messages are not sent."
        return f"This call of the {self.tier.name} tier is end-to-end encrypted: messages in the clear are not sent."


def choose_terms(tier: Tier, demands: Demands) -> Terms:
    """Return the terms of a room that this token creates.   Errors: Refused 403 when they cannot be had."""
    profile = demands.e2ee_profile or tier.default_profile
    frame_format = demands.frame_format
    if profile == "none" and frame_format is not None:
        raise Refused(
            403,
            f"This call of the {tier.name} tier would not be end-to-end encrypted, and the token asks for frames in "
            f"{frame_format}: it has to ask for a profile too.",
        )
    if frame_format is None:
        frame_format = "sframe" if profile == "group" else tier.frame_format
    sentence = tier.contradiction(profile, frame_format)
    if sentence is not None:
        raise Refused(403, sentence)
    return Terms(tier, profile, frame_format)


def check_demands(terms: Terms, demands: Demands, tiers: TierTable) -> None:
    """Do nothing when a room of these terms is what this token demands.   Errors: Refused 403."""
    name = terms.tier.name
    if demands.min_tier is not None:
        wanted = tiers.named(demands.min_tier)
        if terms.tier.strictness < wanted.strictness:
            raise Refused(
                403,
                f"This call is of the {name} tier, which is weaker than the {wanted.name} tier that the token demands.",
            )
    if demands.e2ee_profile is not None and demands.e2ee_profile != terms.e2ee_profile:
        raise Refused(
            403,
            f"This call of the {name} tier has the profile {terms.e2ee_profile} since it began, and the token demands "
            f"{demands.e2ee_profile}.",
        )
    if demands.frame_format is not None and demands.frame_format != terms.frames:
        raise Refused(
            403,
            f"The frames of this call of the {name} tier are in {terms.frames} since it began, and the token demands "
            f"{demands.frame_format}.",
        )


def counted(number: int, noun: str) -> str:
    """Return "1 track" or "2 tracks"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

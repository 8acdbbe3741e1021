"""What one participant may do, and from which sources it may publish."""

import enum
from dataclasses import dataclass


class Source(enum.IntEnum):
    """Where a published track comes from; the numbers are LiveKit's TrackSource."""

    UNKNOWN = 0
    CAMERA = 1
    MICROPHONE = 2
    SCREEN_SHARE = 3
    SCREEN_SHARE_AUDIO = 4


@dataclass(frozen=True, slots=True)
class Permission:
    """The rights of one session, fixed by its token.

    An empty `sources` restricts nothing. `can_publish_data` is separate from `can_publish`, because an audience may
    be allowed to chat.
    """

    can_subscribe: bool = True
    can_publish: bool = True
    can_publish_data: bool = True
    can_update_metadata: bool = False
    sources: frozenset[Source] = frozenset()
    recorder: bool = False
    agent: bool = False

    def may_publish(self, source: Source) -> bool:
        """True when a track of this source may be published."""
        return self.can_publish and (not self.sources or source in self.sources)


@dataclass(frozen=True, slots=True)
class AudienceRule:
    """A publisher's consent for one other participant: by sid or identity, for all tracks or for some."""

    participant_sid: str = ""
    identity: str = ""
    all_tracks: bool = False
    track_sids: frozenset[str] = frozenset()

    def names(self, sid: str, identity: str) -> bool:
        """True when this rule speaks of that participant; a sid is the more exact name and wins."""
        return self.participant_sid == sid if self.participant_sid else bool(identity) and self.identity == identity


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a publisher lets subscribe. The default lets everybody."""

    everybody: bool = True
    rules: tuple[AudienceRule, ...] = ()

    def allows(self, sid: str, identity: str, track_sid: str) -> bool:
        """True when that participant may see that track."""
        if self.everybody:
            return True
        return any(
            rule.names(sid, identity) and (rule.all_tracks or track_sid in rule.track_sids) for rule in self.rules
        )


EVERYBODY = Audience()

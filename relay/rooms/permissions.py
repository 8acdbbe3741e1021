"""What one participant may do, and from which sources it may publish."""

import enum
from dataclasses import dataclass, field


class Source(enum.IntEnum):
    """Where a published track comes from; the numbers are LiveKit's TrackSource."""

    UNKNOWN = 0
    CAMERA = 1
    MICROPHONE = 2
    SCREEN_SHARE = 3
    SCREEN_SHARE_AUDIO = 4


_PICTURES = frozenset({Source.CAMERA, Source.SCREEN_SHARE})
_SOUNDS = frozenset({Source.MICROPHONE, Source.SCREEN_SHARE_AUDIO})


@dataclass(frozen=True, slots=True)
class Permission:
    """The rights of one session: those of its token, until the server API gives others.

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

    def may_publish(self, source: Source, *, is_video: bool) -> bool:
        """True when such a track of this source may be published; a picture is no microphone, whatever it is called."""
        fitting = _PICTURES if is_video else _SOUNDS
        return self.can_publish and (not self.sources or source in self.sources & fitting)


@dataclass(frozen=True, slots=True)
class AudienceRule:
    """A publisher's consent for one other participant: by sid or identity, for all tracks or for some."""

    participant_sid: str = ""
    identity: str = ""
    all_tracks: bool = False
    track_sids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a publisher lets subscribe. The default lets everybody.

    A rule that has a sid speaks of that participant alone, whatever identity it names. Rules are looked up and not
    searched: a publisher may send a thousand, and they are asked about for each of its tracks and each participant.
    """

    everybody: bool = True
    rules: tuple[AudienceRule, ...] = ()
    # By ("sid", sid) or ("identity", identity): the tracks, None for all of them.
    _tracks_of: dict[tuple[str, str], set[str] | None] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for rule in self.rules:
            name = ("sid", rule.participant_sid) if rule.participant_sid else ("identity", rule.identity)
            tracks = self._tracks_of.setdefault(name, set())
            if rule.all_tracks:
                self._tracks_of[name] = None
            elif tracks is not None:
                tracks |= rule.track_sids

    def allows(self, sid: str, identity: str, track_sid: str) -> bool:
        """True when that participant may see that track."""
        if self.everybody:
            return True
        for name in (("sid", sid), ("identity", identity)):
            if name[1]:
                tracks = self._tracks_of.get(name, ())
                if tracks is None or track_sid in tracks:
                    return True
        return False


EVERYBODY = Audience()

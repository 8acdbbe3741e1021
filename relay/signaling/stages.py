"""Carries out a large room's rules of who is forwarded: last-N of pictures, loudest-N of sound; and whom videos favour."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from relay.clock import monotonic_ns
from relay.quality.stage import Stage, speaking
from relay.rooms.permissions import Source

if TYPE_CHECKING:
    from relay.signaling.hall import Hall


class Stages:
    """The two stages of one room; with sizes of 0 both let everybody on and cost next to nothing."""

    def __init__(self, hall: "Hall") -> None:
        self._hall = hall
        limits = hall.room.terms.tier.limits
        self._pictures = Stage(limits.cameras_forwarded)
        self._sounds = Stage(limits.microphones_forwarded, for_sound=True)

    def hear(self, levels: Mapping[str, float]) -> None:
        """Take who speaks now; call it every window while anybody does."""
        now_ns = monotonic_ns()
        for stage in (self._pictures, self._sounds):
            stage.hear(levels, now_ns)
        hall = self._hall
        before, hall.speaking = hall.speaking, speaking(self._pictures, tuple(hall.room.endpoints), now_ns)
        if hall.speaking != before:
            for session in hall.sessions.values():
                # Where the path has room for everything, nobody has to come first.
                if session.division.is_short:
                    session.division.refresh_all()
        self.update()

    def update(self) -> None:
        """Bring on stage who belongs there, and off who does not."""
        if self._pictures.size:
            self._set(self._pictures, is_video=True)
        if self._sounds.size:
            self._set(self._sounds, is_video=False)

    def _set(self, stage: Stage, *, is_video: bool) -> None:
        room, now_ns = self._hall.room, monotonic_ns()
        tracks: dict[str, list[str]] = {}
        for endpoint in room.endpoints.values():
            for publication in endpoint.bound_publications():
                is_screen = publication.source in (Source.SCREEN_SHARE, Source.SCREEN_SHARE_AUDIO)
                if publication.is_video == is_video and not is_screen:
                    tracks.setdefault(endpoint.sid, []).append(publication.sid)
        on = stage.pick(tuple(tracks), now_ns)
        for sid, track_sids in tracks.items():
            for track_sid in track_sids:
                if room.is_on_stage(track_sid) != (sid in on):
                    self._hall.carry_out(room.set_stage(track_sid, sid in on, now_ns))
                    self._hall.demands.touch(track_sid)

"""What a client would have been told while its signalling connection was gone.

Most of it needs no memory: who is here, with which tracks, and the room itself are told anew as they are when the client
is back. Kept are answers, in order, and the newest word on what is told as changes: who speaks, how good a connection is,
which layers of a track are wanted. More than is kept cannot be told one by one: the client then joins anew.
"""

from collections.abc import Collection

from livekit.protocol import models, rtc

# What the client reads anew when it is back, or asks again.
_TOLD_ANEW = frozenset(
    ("join", "reconnect", "update", "room_update", "offer", "answer", "trickle", "refresh_token", "pong", "pong_resp",
     "media_sections_requirement")
)  # fmt: skip
MAX_KEPT = 256
MAX_KEPT_BYTES = 65_536
# Tracks and participants of whom the newest word is kept; a room has fewer.
MAX_LATEST = 4096


class Missed:
    """The messages of one absence."""

    def __init__(self) -> None:
        self.is_too_much = False
        self._kept: list[rtc.SignalResponse] = []
        self._bytes = 0
        self._speakers: dict[str, models.SpeakerInfo] = {}
        self._qualities: dict[str, rtc.ConnectionQualityInfo] = {}
        self._streams: dict[str, rtc.StreamStateInfo] = {}
        self._wanted: dict[str, rtc.SubscribedQualityUpdate] = {}

    def add(self, message: rtc.SignalResponse) -> None:
        """Take a message that nobody could be sent."""
        kind = message.WhichOneof("message")
        if kind == "speakers_changed":
            self._speakers |= {info.sid: info for info in message.speakers_changed.speakers}
        elif kind == "connection_quality":
            self._qualities |= {info.participant_sid: info for info in message.connection_quality.updates}
        elif kind == "stream_state_update":
            self._streams |= {info.track_sid: info for info in message.stream_state_update.stream_states}
        elif kind == "subscribed_quality_update":
            self._wanted[message.subscribed_quality_update.track_sid] = message.subscribed_quality_update
        elif kind not in _TOLD_ANEW:
            self._kept.append(message)
            self._bytes += message.ByteSize()
        latest = len(self._speakers) + len(self._qualities) + len(self._streams) + len(self._wanted)
        if len(self._kept) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES or latest > MAX_LATEST:
            self.is_too_much = True
            self._clear()

    def take(self, present: Collection[str]) -> list[rtc.SignalResponse]:
        """Return what is to be told now, and forget it; words on participants who are not `present` any more are left out."""
        told = list(self._kept)
        if speakers := [info for sid, info in self._speakers.items() if sid in present]:
            told.append(rtc.SignalResponse(speakers_changed=rtc.SpeakersChanged(speakers=speakers)))
        if qualities := [info for sid, info in self._qualities.items() if sid in present]:
            told.append(rtc.SignalResponse(connection_quality=rtc.ConnectionQualityUpdate(updates=qualities)))
        if streams := [info for info in self._streams.values() if info.participant_sid in present]:
            told.append(rtc.SignalResponse(stream_state_update=rtc.StreamStateUpdate(stream_states=streams)))
        told += [rtc.SignalResponse(subscribed_quality_update=update) for update in self._wanted.values()]
        self._clear()
        return told

    def _clear(self) -> None:
        self._kept, self._bytes = [], 0
        for latest in (self._speakers, self._qualities, self._streams, self._wanted):
            latest.clear()

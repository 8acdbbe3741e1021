"""What a customer's webhooks are told of one room: the difference between its roster and what was told before.

LiveKit's events, in its order: a participant is joined once its media is connected, its tracks come after it and go before it.
"""

from livekit.protocol import models

from relay.rooms.endpoint import Endpoint, State
from relay.rooms.room import Room
from relay.signaling.livekit import messages
from relay.signaling.webhooks import Webhooks


class Reporter:
    """The events of one room."""

    def __init__(self, room: Room, webhooks: Webhooks) -> None:
        self._room = room
        self._webhooks = webhooks
        # Tracks by sid, of participants whose joining was told.
        self._told: dict[str, dict[str, models.TrackInfo]] = {}
        self._tell("room_started")

    def changed(self, endpoint: Endpoint) -> None:
        """Tell what is new of a participant."""
        if endpoint.sid not in self._told:
            if endpoint.state is not State.ACTIVE:
                return
            self._told[endpoint.sid] = {}
            self._tell("participant_joined", endpoint)
        told = self._told[endpoint.sid]
        bound = {publication.sid: publication for publication in endpoint.bound_publications()}
        for sid in [sid for sid in told if sid not in bound]:
            self._tell("track_unpublished", endpoint, told.pop(sid))
        for sid, publication in bound.items():
            if sid not in told:
                told[sid] = messages.track_info(publication)
                self._tell("track_published", endpoint, told[sid])

    def departed(self, endpoint: Endpoint) -> None:
        """Tell that a participant is gone, with its tracks."""
        told = self._told.pop(endpoint.sid, None)
        if told is None:
            return
        for track in told.values():
            self._tell("track_unpublished", endpoint, track)
        self._tell("participant_left", endpoint)

    def finished(self) -> None:
        """Tell that the room is over."""
        self._tell("room_finished")

    def _tell(self, event: str, endpoint: Endpoint | None = None, track: models.TrackInfo | None = None) -> None:
        participant = messages.participant_info(endpoint) if endpoint is not None else None
        self._webhooks.tell(self._room.key.customer, event, messages.room_info(self._room), participant, track)

"""LiveKit's RoomService: rooms and participants as an app's own server administers them (LIVEKIT §1.5).

What it does beyond LiveKit's: `CreateRoom.tags` may hold `veil.e2ee_profile`, `veil.frame_format` and `veil.min_tier`, as the
attributes of a token may, and `veil.locked` ("true", "false"), for an open room too. `RemoveParticipant.revoke_token_ts` (seconds)
keeps tokens of that identity out that were signed up to then, until the room ends; a moment far ahead is a ban.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from livekit.protocol import models
from livekit.protocol import room as api

from relay.clock import monotonic_ns
from relay.config import ApiKey
from relay.errors import Refused
from relay.log import get_logger
from relay.policy.terms import Demands, is_reserved, read_demands
from relay.policy.tiers import RoomKey
from relay.rooms.endpoint import LeaveReason
from relay.signaling.conference import Conference, RoomWishes
from relay.signaling.hall import Hall
from relay.signaling.livekit import data, messages
from relay.signaling.livekit.tokens import MAX_METADATA_CHARACTERS, MAX_NAME_CHARACTERS, NOBODY_HIDDEN
from relay.signaling.session import Session

log = get_logger(__name__)

LOCKED = "veil.locked"
MAX_NAMES = 1000
MAX_TRACKS = 1024
MAX_NONCE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the key of a verified token, its grants and what its attributes demand of a room that it makes."""

    key: ApiKey
    video: Mapping[str, Any]
    demands: Demands

    def check(self, grant: str) -> None:
        """Do nothing when the token has this grant.   Errors: Refused 401, as LiveKit answers."""
        if self.video.get(grant) is not True:
            raise Refused(401, f"The token does not grant {grant}.")

    def check_admin(self, room: str) -> RoomKey:
        """Return the full name of a room that the token may administer.   Errors: Refused 401."""
        self.check("roomAdmin")
        if not room or self.video.get("room") != room:
            raise Refused(401, "The token does not grant roomAdmin in this room.")
        return RoomKey(self.key.customer, room)


@dataclass(frozen=True, slots=True)
class Method:
    """One call of the service."""

    request: Callable[[], Message]
    handle: Callable[[Caller, Any], Awaitable[Message]]


class RoomService:
    """The calls of one relay, by their names."""

    def __init__(self, conference: Conference, *, can_unmute: bool) -> None:
        self._conference = conference
        self._can_unmute = can_unmute
        self.methods = {
            "CreateRoom": Method(api.CreateRoomRequest, self._create_room),
            "ListRooms": Method(api.ListRoomsRequest, self._list_rooms),
            "DeleteRoom": Method(api.DeleteRoomRequest, self._delete_room),
            "ListParticipants": Method(api.ListParticipantsRequest, self._list_participants),
            "GetParticipant": Method(api.RoomParticipantIdentity, self._get_participant),
            "RemoveParticipant": Method(api.RoomParticipantIdentity, self._remove_participant),
            "MutePublishedTrack": Method(api.MuteRoomTrackRequest, self._mute_published_track),
            "UpdateParticipant": Method(api.UpdateParticipantRequest, self._update_participant),
            "UpdateSubscriptions": Method(api.UpdateSubscriptionsRequest, self._update_subscriptions),
            "SendData": Method(api.SendDataRequest, self._send_data),
            "UpdateRoomMetadata": Method(api.UpdateRoomMetadataRequest, self._update_room_metadata),
            "ForwardParticipant": Method(api.ForwardParticipantRequest, self._unimplemented),
            "MoveParticipant": Method(api.MoveParticipantRequest, self._unimplemented),
            "PerformRpc": Method(api.PerformRpcRequest, self._unimplemented),
        }

    # Rooms.

    async def _create_room(self, caller: Caller, request: api.CreateRoomRequest) -> models.Room:
        caller.check("roomCreate")
        if not 0 < len(request.name) <= MAX_NAME_CHARACTERS:
            raise Refused(400, f"A room name has 1 to {MAX_NAME_CHARACTERS} characters.")
        _check_length(request.metadata, "metadata")
        if request.HasField("egress") or request.replay_enabled:
            raise Refused(501, "This server records nothing by itself: leave egress and replay out.")
        if request.agents:
            raise Refused(501, "This server dispatches no agents.")
        if request.room_preset:
            raise Refused(400, "This server has no room presets.")
        tags = dict(request.tags)
        locked = tags.pop(LOCKED, None)
        if locked not in (None, "true", "false"):
            raise Refused(400, f"{LOCKED} is neither true nor false.")
        demands = _together(caller.demands, read_demands(tags.items(), "request"))
        wishes = RoomWishes(
            request.empty_timeout, request.departure_timeout, request.max_participants, request.metadata
        )
        hall = self._conference.create(RoomKey(caller.key.customer, request.name), demands, wishes)
        if locked is not None:
            hall.room.set_locked(locked == "true")
            log.info("room locked" if locked == "true" else "room unlocked", room=hall.room.sid, key=caller.key.key)
        return messages.room_info(hall.room)

    async def _list_rooms(self, caller: Caller, request: api.ListRoomsRequest) -> api.ListRoomsResponse:
        caller.check("roomList")
        names = frozenset(request.names[:MAX_NAMES])
        rooms = [room for room in self._conference.rooms_of(caller.key.customer) if not names or room.key.name in names]
        return api.ListRoomsResponse(rooms=[messages.room_info(room) for room in rooms])

    async def _delete_room(self, caller: Caller, request: api.DeleteRoomRequest) -> api.DeleteRoomResponse:
        caller.check("roomCreate")
        hall = self._find(RoomKey(caller.key.customer, request.room))
        log.info("room deleted", room=hall.room.sid, key=caller.key.key)
        self._conference.delete(hall)
        return api.DeleteRoomResponse()

    async def _update_room_metadata(self, caller: Caller, request: api.UpdateRoomMetadataRequest) -> models.Room:
        hall = self._hall(caller, request.room)
        _check_length(request.metadata, "metadata")
        hall.carry_out(hall.room.set_metadata(request.metadata))
        return messages.room_info(hall.room)

    # Participants.

    async def _list_participants(
        self, caller: Caller, request: api.ListParticipantsRequest
    ) -> api.ListParticipantsResponse:
        hall = self._conference.find(caller.check_admin(request.room))
        endpoints = hall.room.endpoints.values() if hall is not None else ()
        return api.ListParticipantsResponse(participants=[messages.participant_info(one) for one in endpoints])

    async def _get_participant(self, caller: Caller, request: api.RoomParticipantIdentity) -> models.ParticipantInfo:
        _, session = self._session(caller, request.room, request.identity)
        return messages.participant_info(session.endpoint)

    async def _remove_participant(
        self, caller: Caller, request: api.RoomParticipantIdentity
    ) -> api.RemoveParticipantResponse:
        hall = self._hall(caller, request.room)
        if request.revoke_token_ts > 0:
            # Who has just left by itself is kept out all the same.
            if not 0 < len(request.identity) <= MAX_NAME_CHARACTERS:
                raise Refused(400, f"An identity has 1 to {MAX_NAME_CHARACTERS} characters.")
            hall.room.revoke(request.identity, request.revoke_token_ts)
        session = _in_room(hall, request.identity)
        if session is not None:
            hall.room.forget_place(request.identity)
            log.info("participant removed", room=hall.room.sid, participant=session.sid, key=caller.key.key)
            session.end(LeaveReason.PARTICIPANT_REMOVED)
        elif request.revoke_token_ts <= 0:
            raise Refused(404, "The participant is not in the room.")
        return api.RemoveParticipantResponse()

    async def _mute_published_track(
        self, caller: Caller, request: api.MuteRoomTrackRequest
    ) -> api.MuteRoomTrackResponse:
        hall, session = self._session(caller, request.room, request.identity)
        publication = hall.room.own_publication(session.sid, request.track_sid)
        if publication is None:
            raise Refused(404, "The participant has no such track.")
        if not request.muted and not self._can_unmute:
            raise Refused(412, "On this server nobody is unmuted but by themselves (rooms.enable_remote_unmute is off).")
        hall.carry_out(hall.room.mute_from_outside(session.sid, publication.sid, request.muted, monotonic_ns()))
        return api.MuteRoomTrackResponse(track=messages.track_info(publication))

    async def _update_participant(self, caller: Caller, request: api.UpdateParticipantRequest) -> models.ParticipantInfo:
        hall, session = self._session(caller, request.room, request.identity)
        if request.permission.hidden:
            raise Refused(403, NOBODY_HIDDEN)
        _check_length(request.metadata, "metadata")
        if len(request.name) > MAX_NAME_CHARACTERS:
            raise Refused(400, f"A name has at most {MAX_NAME_CHARACTERS} characters.")
        room = hall.room
        try:
            hall.carry_out(
                room.update_description(
                    session.sid,
                    name=request.name,
                    metadata=request.metadata,
                    attributes=tuple(request.attributes.items()),
                    by_server=True,
                )
            )
        except Refused as refused:
            raise Refused(400 if refused.status == 413 else refused.status, refused.sentence) from None
        if request.HasField("permission"):
            permission = messages.read_permission(request.permission)
            if permission.can_subscribe:
                await session.let_subscribe()
            if session.is_over:
                raise Refused(404, "The participant is not in the room.")
            hall.carry_out(room.set_permission(session.sid, permission))
        return messages.participant_info(session.endpoint)

    async def _update_subscriptions(
        self, caller: Caller, request: api.UpdateSubscriptionsRequest
    ) -> api.UpdateSubscriptionsResponse:
        hall, session = self._session(caller, request.room, request.identity)
        named = [*request.track_sids, *(sid for tracks in request.participant_tracks for sid in tracks.track_sids)]
        known = [sid for sid in named[:MAX_TRACKS] if hall.room.publication(sid) is not None]
        hall.carry_out(hall.room.choose(session.sid, known, request.subscribe))
        return api.UpdateSubscriptionsResponse()

    async def _send_data(self, caller: Caller, request: api.SendDataRequest) -> api.SendDataResponse:
        hall = self._hall(caller, request.room)
        sentence = hall.room.terms.data_refusal(is_encrypted=False)
        if sentence is not None:
            raise Refused(403, sentence)
        if is_reserved(request.topic):
            raise Refused(403, "Topics whose names begin with veil. are the server's.")
        packet = messages.packet_of_server(request).SerializeToString()
        if len(packet) > self._conference.limits.data_message_bytes or len(request.nonce) > MAX_NONCE_BYTES:
            raise Refused(400, f"A message has at most {self._conference.limits.data_message_bytes} bytes.")
        label = data.LOSSY if request.kind == models.DataPacket.Kind.LOSSY else data.RELIABLE
        identities, sids = frozenset(request.destination_identities), frozenset(request.destination_sids)
        for session in tuple(hall.sessions.values()):
            if not (identities or sids) or session.endpoint.identity in identities or session.sid in sids:
                session.send_data(label, packet)
        return api.SendDataResponse()

    async def _unimplemented(self, caller: Caller, request: Message) -> Message:
        raise Refused(501, "This server does not do that.")

    # Inside.

    def _find(self, key: RoomKey) -> Hall:
        hall = self._conference.find(key)
        if hall is None:
            raise Refused(404, "The requested room does not exist.")
        return hall

    def _hall(self, caller: Caller, room: str) -> Hall:
        return self._find(caller.check_admin(room))

    def _session(self, caller: Caller, room: str, identity: str) -> tuple[Hall, Session]:
        hall = self._conference.find(caller.check_admin(room))
        session = _in_room(hall, identity) if hall is not None else None
        if hall is None or session is None:
            raise Refused(404, "The participant is not in the room.")
        return hall, session


def _in_room(hall: Hall, identity: str) -> Session | None:
    endpoint = hall.room.by_identity(identity)
    return hall.sessions.get(endpoint.sid) if endpoint is not None else None


def _together(of_token: Demands, of_request: Demands) -> Demands:
    said = of_token.attributes()
    for name, value in of_request.attributes().items():
        if said.setdefault(name, value) != value:
            raise Refused(403, f"The token demands a {name} of {said[name]}, and the request {value}.")
    return read_demands(said.items(), "request")


def _check_length(text: str, what: str) -> None:
    if len(text) > MAX_METADATA_CHARACTERS:
        raise Refused(400, f"The {what} is longer than {MAX_METADATA_CHARACTERS} characters.")

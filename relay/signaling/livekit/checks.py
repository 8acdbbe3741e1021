"""What must be true of every message before a client sees it (LIVEKIT §6): an ABI in sentences.

Native SDKs unwrap what the server sends: a track sid without `TR_`, a trickle without sdpMid or a ping interval of 0
aborts the whole process of the user. Each check returns the first thing that is wrong, or an empty string.
"""

import json
from collections.abc import Callable

from livekit.protocol import models, rtc

from relay.sdp.grammar import MAX_SECTIONS

# First protocol number that knows a message; what is not here every supported client knows.
FIRST_PROTOCOL = {
    "speakers_changed": 3,
    "connection_quality": 5,
    "track_unpublished": 7,
    "track_subscribed": 10,
    "room_moved": 16,
    # Browsers of 16 that speak v1 know it.
    "media_sections_requirement": 16,
    "subscribed_audio_codec_update": 17,
    "publish_data_track_response": 17,
    "unpublish_data_track_response": 17,
    "data_track_subscriber_handles": 17,
    "store_data_blob_response": 18,
    "get_data_blob_response": 18,
}
# Reads as POOR when left at its default, and LOST makes browsers reconnect: both must be meant.
_LONGEST_ABSURD_PING_S = 3600


def check_participant(info: models.ParticipantInfo) -> str:
    """A participant that clients can take in."""
    if not _is_sid(info.sid, "PA"):
        return f"participant sid {info.sid!r} does not start with PA_"
    if not info.identity:
        return "a participant has no identity"
    if info.version == 0:
        return "a participant has version 0, so its updates would be ignored"
    if info.permission.hidden:
        return "a hidden participant"
    return next((wrong for wrong in map(check_track, info.tracks) if wrong), "")


def check_track(track: models.TrackInfo) -> str:
    """A track that clients can take in."""
    return "" if _is_sid(track.sid, "TR") else f"track sid {track.sid!r} does not start with TR_"


def _is_sid(sid: str, prefix: str) -> bool:
    return sid.startswith(prefix + "_") and len(sid) > len(prefix) + 1


def _join(join: rtc.JoinResponse) -> str:
    if not join.HasField("participant"):
        return "join without participant"
    if not join.HasField("room"):
        return "join without room"
    if not _is_sid(join.room.sid, "RM"):
        return f"room sid {join.room.sid!r} does not start with RM_"
    if not join.server_info.version:
        return "join without a server version, which browsers refuse"
    if not 0 < join.ping_interval < _LONGEST_ABSURD_PING_S:
        return f"ping_interval {join.ping_interval}"
    if not join.ping_interval < join.ping_timeout < _LONGEST_ABSURD_PING_S:
        return f"ping_timeout {join.ping_timeout}"
    if not join.sif_trailer:
        return "join without sif_trailer"
    if any(other.sid == join.participant.sid for other in join.other_participants):
        return "join lists the joiner among the others"
    return next((w for w in map(check_participant, [join.participant, *join.other_participants]) if w), "")


def _update(update: rtc.ParticipantUpdate) -> str:
    if not update.participants:
        return "update without participants"
    return next((wrong for wrong in map(check_participant, update.participants) if wrong), "")


def _offer(description: rtc.SessionDescription) -> str:
    if description.id == 0:
        return "offer without an id"
    return _description(description, "offer")


def _answer(description: rtc.SessionDescription) -> str:
    return _description(description, "answer")


def _description(description: rtc.SessionDescription, kind: str) -> str:
    if description.type != kind:
        return f"{kind} of type {description.type!r}"
    if not description.sdp.startswith("v=0\r\n") or not description.sdp.endswith("\r\n"):
        return f"{kind} whose SDP does not begin with v=0 and end with a line end"
    for line in description.sdp.split("\r\n"):
        if line.startswith("a=msid:"):
            stream = line[len("a=msid:") :].split(" ", 1)[0]
            if "|" in stream and not _is_sid(stream.split("|", 1)[0], "PA"):
                return f"stream id {stream!r} does not start with PA_"
    for mid, track_sid in description.mid_to_track_id.items():
        if not mid or not _is_sid(track_sid, "TR"):
            return f"mid {mid!r} is mapped to {track_sid!r}, which is no TR_ sid"
    return ""


def _trickle(trickle: rtc.TrickleRequest) -> str:
    try:
        candidate = json.loads(trickle.candidateInit)
    except ValueError:
        return "trickle that is not JSON"
    if not isinstance(candidate, dict) or not isinstance(candidate.get("candidate"), str):
        return "trickle without candidate"
    if not isinstance(candidate.get("sdpMid"), str):
        return "trickle without sdpMid"
    if type(candidate.get("sdpMLineIndex")) is not int:
        return "trickle without sdpMLineIndex"
    return ""


def _track_published(published: rtc.TrackPublishedResponse) -> str:
    if not published.cid:
        return "track_published without cid"
    if not published.HasField("track"):
        return "track_published without track"
    return check_track(published.track)


def _room_update(update: rtc.RoomUpdate) -> str:
    if not update.HasField("room"):
        return "room_update without room"
    return "" if _is_sid(update.room.sid, "RM") else f"room sid {update.room.sid!r} does not start with RM_"


def _connection_quality(update: rtc.ConnectionQualityUpdate) -> str:
    for info in update.updates:
        if not _is_sid(info.participant_sid, "PA"):
            return f"quality of {info.participant_sid!r}"
        if info.quality == models.ConnectionQuality.POOR and info.score == 0:
            return "connection quality left at its default, which means poor"
    return "" if update.updates else "connection_quality without updates"


def _speakers(update: rtc.SpeakersChanged) -> str:
    return next((f"speaker {s.sid!r}" for s in update.speakers if not _is_sid(s.sid, "PA")), "")


def _track_sid(message: object) -> str:
    sid = getattr(message, "track_sid", None) or getattr(message, "sid", "")
    return "" if _is_sid(str(sid), "TR") else f"track sid {sid!r} does not start with TR_"


def _permission_update(update: rtc.SubscriptionPermissionUpdate) -> str:
    return "" if _is_sid(update.participant_sid, "PA") else f"participant sid {update.participant_sid!r}"


def _subscribed_quality(update: rtc.SubscribedQualityUpdate) -> str:
    for codec in update.subscribed_codecs:
        if not codec.codec or codec.codec != codec.codec.lower() or "/" in codec.codec:
            return f"codec {codec.codec!r}, which browsers do not find among theirs"
        if len(codec.qualities) != 3:
            return f"{len(codec.qualities)} qualities of a codec, where all three have to be named"
    return "" if update.subscribed_codecs else "subscribed_quality_update without subscribed_codecs, which browsers go by"


def _stream_states(update: rtc.StreamStateUpdate) -> str:
    for info in update.stream_states:
        if not _is_sid(info.participant_sid, "PA"):
            return f"participant sid {info.participant_sid!r}"
        if wrong := _track_sid(info):
            return wrong
    return "" if update.stream_states else "stream_state_update without a stream"


def _leave(leave: rtc.LeaveRequest) -> str:
    if leave.can_reconnect != (leave.action != rtc.LeaveRequest.Action.DISCONNECT):
        return "leave whose can_reconnect and action disagree"
    return ""


def _pong(pong: rtc.Pong) -> str:
    # A nanosecond clock here overflows the number type of browsers.
    return "" if 0 < pong.timestamp < 1 << 53 else f"pong at {pong.timestamp} ms"


_BY_KIND: dict[str, Callable[..., str]] = {
    "join": _join,
    "update": _update,
    "offer": _offer,
    "answer": _answer,
    "trickle": _trickle,
    "track_published": _track_published,
    "room_update": _room_update,
    "connection_quality": _connection_quality,
    "speakers_changed": _speakers,
    "mute": _track_sid,
    "track_unpublished": _track_sid,
    "track_subscribed": _track_sid,
    "subscription_response": _track_sid,
    "subscribed_quality_update": lambda m: _track_sid(m) or _subscribed_quality(m),
    "stream_state_update": _stream_states,
    "subscription_permission_update": lambda m: _permission_update(m) or _track_sid(m),
    "leave": _leave,
    # Clients add as many sections as they are told to.
    "media_sections_requirement": lambda m: "" if max(m.num_audios, m.num_videos) <= MAX_SECTIONS else "too many sections",
    "pong_resp": _pong,
    "pong": lambda value: "" if 0 < value < 1 << 53 else f"pong {value}",
    "refresh_token": lambda token: "" if token else "an empty refresh_token",
    "reconnect": lambda message: "",
    "request_response": lambda message: "",
}


def check(response: rtc.SignalResponse) -> str:
    """Return what is wrong with this message by itself, empty when nothing is."""
    kind = response.WhichOneof("message")
    if kind is None:
        return "a message with nothing in it"
    checker = _BY_KIND.get(kind)
    if checker is None:
        return f"{kind} is not a message this server sends"
    return checker(getattr(response, kind))

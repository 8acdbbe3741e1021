"""Builds LiveKit messages out of what rooms know, and reads requests into it (LIVEKIT §2).

Nothing here decides anything; field by field translation in both directions.
"""

from collections.abc import Iterable, Mapping

from livekit.protocol import models, rtc
from livekit.protocol import room as room_api

from relay.policy.tiers import VIDEO_CODECS
from relay.quality.choice import Quality, Wanted
from relay.quality.connection import Rating
from relay.quality.explain import StreamState
from relay.quality.speakers import Speaker
from relay.rooms.endpoint import Endpoint, LeaveReason
from relay.rooms.permissions import Audience, AudienceRule, Permission, Source
from relay.rooms.publication import CodecChoice, Encryption, Layer, Publication
from relay.rooms.room import Room
from relay.signaling.turn import IceServer

# Clients gate features on LiveKit's version number (browsers refuse an empty one); our own name is in debug_info.
SERVER_VERSION = "1.13.0"
SERVER_PROTOCOL = 17
DEBUG_INFO = "veil"
# As clients write them. RED is taken in clear calls alone; who encrypts does not send it.
_MIMES = {"vp8": "video/VP8", "h264": "video/H264", "vp9": "video/VP9", "av1": "video/AV1"}
_AUDIO_MIMES = ("audio/opus", "audio/red")
MAX_LAYERS = 8
NOTICE_TOPIC = "veil.notice"
Response = rtc.SignalResponse


def join(
    room: Room,
    me: Endpoint,
    others: Iterable[Endpoint],
    *,
    subscriber_primary: bool,
    ping_interval_s: int,
    ping_timeout_s: int,
    ice_servers: Iterable[IceServer] = (),
) -> Response:
    """The first frame: everything a client needs to begin."""
    response = rtc.JoinResponse(
        room=room_info(room),
        participant=participant_info(me),
        other_participants=[participant_info(other) for other in others],
        server_version=SERVER_VERSION,
        server_info=_server_info(),
        ice_servers=_ice_servers(ice_servers),
        subscriber_primary=subscriber_primary,
        ping_interval=ping_interval_s,
        ping_timeout=ping_timeout_s,
        sif_trailer=room.sif_trailer,
        # Videos first, no rtx.
        enabled_publish_codecs=[
            models.Codec(mime=mime)
            for mime in (*(_MIMES[name] for name in VIDEO_CODECS[room.terms.frames]), *_AUDIO_MIMES)
        ],
        fast_publish=me.permission.can_publish,
    )
    return Response(join=response)


def reconnect(ice_servers: Iterable[IceServer], last_sequence: int) -> Response:
    """The first frame of a connection that takes another one's place.

    `last_sequence` is the number of the last reliable message that came from this client; it sends later ones again.
    """
    response = rtc.ReconnectResponse(
        ice_servers=_ice_servers(ice_servers), server_info=_server_info(), last_message_seq=last_sequence
    )
    return Response(reconnect=response)


def _ice_servers(servers: Iterable[IceServer]) -> list[rtc.ICEServer]:
    return [
        rtc.ICEServer(urls=server.urls, username=server.username, credential=server.credential) for server in servers
    ]


def _server_info() -> models.ServerInfo:
    return models.ServerInfo(version=SERVER_VERSION, protocol=SERVER_PROTOCOL, debug_info=DEBUG_INFO)


def speakers(changes: Iterable[Speaker]) -> Response:
    """Who began or stopped to speak, or speaks louder or quieter."""
    infos = [models.SpeakerInfo(sid=change.sid, level=change.level, active=change.active) for change in changes]
    return Response(speakers_changed=rtc.SpeakersChanged(speakers=infos))


def connection_quality(ratings: Mapping[str, Rating]) -> Response:
    """How good the connections of these participants are, by sid."""
    infos = [
        rtc.ConnectionQualityInfo(participant_sid=sid, quality=int(rating.quality), score=rating.score)  # type: ignore[arg-type]
        for sid, rating in ratings.items()
    ]
    return Response(connection_quality=rtc.ConnectionQualityUpdate(updates=infos))


def room_info(room: Room) -> models.Room:
    """The room as clients see it."""
    return models.Room(
        sid=room.sid,
        name=room.key.name,
        metadata=room.metadata,
        empty_timeout=room.never_joined_s or 0,
        departure_timeout=room.departed_s or 0,
        creation_time=room.created_ms // 1000,
        creation_time_ms=room.created_ms,
        max_participants=room.max_participants,
        num_participants=len(room.endpoints),
        num_publishers=sum(endpoint.is_publisher for endpoint in room.endpoints.values()),
    )


def participant_info(endpoint: Endpoint) -> models.ParticipantInfo:
    """One roster entry, with all tracks others may know of."""
    description = endpoint.description
    return models.ParticipantInfo(
        sid=endpoint.sid,
        identity=description.identity,
        name=description.name,
        metadata=description.metadata,
        attributes={**dict(description.attributes), **endpoint.room_attributes},
        state=int(endpoint.state),  # type: ignore[arg-type]
        tracks=[track_info(publication) for publication in endpoint.bound_publications()],
        joined_at=endpoint.joined_at_ms // 1000,
        joined_at_ms=endpoint.joined_at_ms,
        version=endpoint.version,
        permission=permission_info(endpoint.permission),
        is_publisher=endpoint.is_publisher,
        kind=description.kind,  # type: ignore[arg-type]
        client_protocol=description.client_protocol,
        capabilities=description.capabilities,  # type: ignore[arg-type]
        disconnect_reason=int(endpoint.leave_reason),  # type: ignore[arg-type]
    )


def permission_info(permission: Permission) -> models.ParticipantPermission:
    """The rights as clients see them."""
    return models.ParticipantPermission(
        can_subscribe=permission.can_subscribe,
        can_publish=permission.can_publish,
        can_publish_data=permission.can_publish_data,
        can_publish_sources=sorted(int(source) for source in permission.sources),  # type: ignore[arg-type]
        can_update_metadata=permission.can_update_metadata,
        recorder=permission.recorder,
        agent=permission.agent,
    )


def track_info(publication: Publication) -> models.TrackInfo:
    """One track. What the publisher announced comes back unchanged, encryption above all."""
    codecs = publication.codecs or (CodecChoice(publication.mime_type, publication.cid, publication.layers),)
    return models.TrackInfo(
        sid=publication.sid,
        type=models.TrackType.VIDEO if publication.is_video else models.TrackType.AUDIO,
        source=int(publication.source),  # type: ignore[arg-type]
        name=publication.name,
        muted=publication.muted,
        width=publication.width,
        height=publication.height,
        simulcast=publication.is_simulcast,
        layers=_layers_info(publication.layers),
        mime_type=publication.mime_type,
        mid=publication.mid,
        codecs=[
            models.SimulcastCodecInfo(
                mime_type=publication.mime_type if index == 0 and publication.mime_type else choice.mime_type,
                mid=publication.mid if index == 0 else "",
                cid=choice.cid,
                layers=_layers_info(choice.layers),
                video_layer_mode=choice.layer_mode,  # type: ignore[arg-type]
            )
            for index, choice in enumerate(codecs)
        ],
        stereo=publication.stereo,
        disable_dtx=publication.disable_dtx,
        disable_red=publication.disable_red,
        encryption=int(publication.encryption),  # type: ignore[arg-type]
        stream=publication.stream,
        audio_features=publication.audio_features,  # type: ignore[arg-type]
    )


def _layers_info(layers: Iterable[Layer]) -> list[models.VideoLayer]:
    return [
        models.VideoLayer(
            quality=layer.quality,  # type: ignore[arg-type]
            width=layer.width,
            height=layer.height,
            bitrate=layer.bitrate_bps,
            rid=layer.rid,
            spatial_layer=layer.spatial_id,
        )
        for layer in layers
    ]


def update(endpoints: Iterable[Endpoint]) -> Response:
    """Roster entries that changed."""
    return Response(update=rtc.ParticipantUpdate(participants=[participant_info(endpoint) for endpoint in endpoints]))


def room_update(room: Room) -> Response:
    """The room's own description."""
    return Response(room_update=rtc.RoomUpdate(room=room_info(room)))


def offer(sdp: str, number: int, track_by_mid: Mapping[str, str]) -> Response:
    """Our description for the subscriber transport."""
    return Response(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=number, mid_to_track_id=dict(track_by_mid)))


def answer(sdp: str, number: int, track_by_mid: Mapping[str, str]) -> Response:
    """Our description for the client's transport; browsers ignore one whose number is not that of their offer.

    It names all tracks that are sent there now, since browsers forget those that it does not name.
    """
    said = rtc.SessionDescription(type="answer", sdp=sdp, id=number, mid_to_track_id=dict(track_by_mid))
    return Response(answer=said)


def sections_wanted(audios: int, videos: int) -> Response:
    """Ask for an offer with so many more sections to receive on; it is asked for even where that is none."""
    return Response(media_sections_requirement=rtc.MediaSectionsRequirement(num_audios=audios, num_videos=videos))


def track_published(cid: str, publication: Publication) -> Response:
    """The sid of a track the client announced."""
    return Response(track_published=rtc.TrackPublishedResponse(cid=cid, track=track_info(publication)))


def leave(reason: LeaveReason, *, come_back: bool) -> Response:
    """The end of a session: for good, or to be followed by a new join."""
    action = rtc.LeaveRequest.Action.RECONNECT if come_back else rtc.LeaveRequest.Action.DISCONNECT
    return Response(leave=rtc.LeaveRequest(can_reconnect=come_back, reason=int(reason), action=action))  # type: ignore[arg-type]


def track_unpublished(track_sid: str) -> Response:
    """The end of a track that the relay took back; clients stop sending it."""
    return Response(track_unpublished=rtc.TrackUnpublishedResponse(track_sid=track_sid))


def notice(sentence: str) -> bytes:
    """A data packet from nobody that tells its reader what was refused: the only text that every client lets through.

    Apps read it as data with the topic `veil.notice`. livekit-client drops the text of request_response for add_track.
    """
    user = models.UserPacket(payload=sentence.encode(), topic=NOTICE_TOPIC)
    return models.DataPacket(kind=models.DataPacket.Kind.RELIABLE, user=user).SerializeToString()


def mute(track_sid: str, muted: bool) -> Response:
    """A track of its reader's that was muted or unmuted from outside."""
    return Response(mute=rtc.MuteTrackRequest(sid=track_sid, muted=muted))


def packet_of_server(request: room_api.SendDataRequest) -> models.DataPacket:
    """A message of the operator's or its customer's own program: it has no sender."""
    user = models.UserPacket(
        payload=request.data,
        topic=request.topic if request.HasField("topic") else None,
        destination_sids=request.destination_sids,
        destination_identities=request.destination_identities,
        nonce=request.nonce,
    )
    return models.DataPacket(kind=request.kind, destination_identities=request.destination_identities, user=user)


def read_permission(permission: models.ParticipantPermission) -> Permission:
    """Return the rights that the server API names; a list of sources that are all unknown allows none."""
    named = permission.can_publish_sources
    sources = frozenset(Source(source) for source in named if source in set(Source) and source != Source.UNKNOWN)
    return Permission(
        can_subscribe=permission.can_subscribe,
        can_publish=permission.can_publish and (bool(sources) or not named),
        can_publish_data=permission.can_publish_data,
        can_update_metadata=permission.can_update_metadata,
        sources=sources,
        recorder=permission.recorder,
        agent=permission.agent,
    )


def read_publication(request: rtc.AddTrackRequest, sid: str, publisher_sid: str) -> Publication:
    """Return the publication that the client announces; unknown numbers of newer clients become the unspecific ones."""
    is_video = request.type == models.TrackType.VIDEO
    source = Source(request.source) if request.source in set(Source) else Source.UNKNOWN
    encryption = Encryption(request.encryption) if request.encryption in set(Encryption) else Encryption.CUSTOM
    layers = _read_layers(request.layers)
    codecs = tuple(
        CodecChoice(
            _mime(choice.codec, is_video), choice.cid, _read_layers(choice.layers), int(choice.video_layer_mode)
        )
        for choice in request.simulcast_codecs[:4]
    )
    return Publication(
        sid=sid,
        publisher_sid=publisher_sid,
        cid=request.cid,
        is_video=is_video,
        source=source,
        name=request.name,
        muted=request.muted,
        width=request.width,
        height=request.height,
        layers=layers or (codecs[0].layers if codecs else ()),
        codecs=codecs,
        encryption=encryption,
        stream=request.stream or _stream_of(source),
        stereo=request.stereo or models.AudioTrackFeature.TF_STEREO in request.audio_features,
        disable_dtx=request.disable_dtx or models.AudioTrackFeature.TF_NO_DTX in request.audio_features,
        disable_red=request.disable_red,
        audio_features=tuple(request.audio_features[:16]),
    )


def _mime(codec: str, is_video: bool) -> str:
    if not codec or "/" in codec:
        return codec
    return f"{'video' if is_video else 'audio'}/{codec}"


def _stream_of(source: Source) -> str:
    """Tracks of one stream are played in step: camera with microphone, screen with its sound."""
    if source in (Source.SCREEN_SHARE, Source.SCREEN_SHARE_AUDIO):
        return "screen"
    return "camera" if source is not Source.UNKNOWN else ""


def _read_layers(layers: Iterable[models.VideoLayer]) -> tuple[Layer, ...]:
    read = (
        Layer(int(layer.quality), layer.width, layer.height, layer.bitrate, layer.rid, layer.spatial_layer)
        for layer in layers
    )
    return tuple(layer for layer, _ in zip(read, range(MAX_LAYERS), strict=False))


def read_wanted(settings: rtc.UpdateTrackSettings) -> Wanted:
    """Return what a subscriber says it can show."""
    quality = Quality(settings.quality) if settings.quality in set(Quality) else Quality.HIGH
    priority = min(settings.priority, 255)
    return Wanted(settings.disabled, quality, settings.width, settings.height, settings.fps, priority)


def stream_states(changes: Iterable[StreamState]) -> Response:
    """Videos that the reader's connection has no room for any more, or has again."""
    states = [
        rtc.StreamStateInfo(
            participant_sid=change.publisher_sid,
            track_sid=change.track_sid,
            state=rtc.StreamState.PAUSED if change.is_paused else rtc.StreamState.ACTIVE,
        )
        for change in changes
    ]
    return Response(stream_state_update=rtc.StreamStateUpdate(stream_states=states))


def subscribed_quality(publication: Publication, enabled: Mapping[Quality, bool]) -> Response:
    """What the reader should go on sending of its track. Clients of today read `subscribed_codecs` alone."""
    qualities = [rtc.SubscribedQuality(quality=int(q), enabled=on) for q, on in enabled.items()]  # type: ignore[arg-type]
    codec = publication.mime_type.rpartition("/")[2].lower()
    update = rtc.SubscribedQualityUpdate(
        track_sid=publication.sid,
        subscribed_qualities=qualities,
        subscribed_codecs=[rtc.SubscribedCodec(codec=codec, qualities=qualities)],
    )
    return Response(subscribed_quality_update=update)


def read_audience(permission: rtc.SubscriptionPermission) -> Audience:
    """Return whom a publisher lets subscribe."""
    rules = tuple(
        AudienceRule(rule.participant_sid, rule.participant_identity, rule.all_tracks, frozenset(rule.track_sids))
        for rule in permission.track_permissions[:1000]
    )
    return Audience(permission.all_participants, rules)

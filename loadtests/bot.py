"""A participant that speaks the LiveKit protocol (v0): signalling and handshakes in Python, ICE and media native.

Joins any server that speaks it; knows nothing of this one. A call:

    async with Fleet("ws://127.0.0.1:7880") as fleet:
        bot = await Bot.join(fleet, token, publish=[Track.audio()], data=True)
        await bot.until(lambda: bot.flowing >= 1)
        bot.send(b"hello")
        await bot.leave()

Counts of what was sent and received are the LoadGenerator's (`fleet.load.stats()`); `bot.receivers` and `bot.senders` say
which rows are this bot's. Does not: resume a lost connection, v1 (one transport), answer dynacast beyond layers on and off.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from livekit.protocol import models, rtc

from loadtests import sdp
from loadtests.fleet import Fleet
from loadtests.link import Link

PROTOCOL = 16
WAIT_S = 15.0
"""LiveKit's own limit for most steps of a join (LIVEKIT's clients give up after 15 s)."""

PUBLISHER, SUBSCRIBER = rtc.SignalTarget.PUBLISHER, rtc.SignalTarget.SUBSCRIBER
RIDS = ("q", "h", "f")


class JoinError(Exception):
    """The bot is not, or no more, in the call; says why."""


@dataclass(frozen=True)
class Track:
    """Something to publish. `spec` goes to `LoadGenerator.add_sender`; `layers` are (width, height, bitrate_bps), low to high;
    `encryption` is what the track is announced with (models.Encryption.Type)."""

    kind: str
    codec: str
    layers: tuple[tuple[int, int, int], ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    encryption: int = 0

    @classmethod
    def audio(cls, **spec: Any) -> "Track":
        return cls("audio", "opus", (), spec)

    @classmethod
    def video(cls, *layers: tuple[int, int, int], codec: str = "vp8", **spec: Any) -> "Track":
        """One layer is a plain stream, more are simulcast."""
        return cls("video", codec, layers or ((640, 360, 600_000),), spec)


@dataclass
class Publication:
    """A published track of ours and what it became."""

    track: Track
    offered: sdp.Published
    sid: str = ""
    sender: int | None = None


class Bot:
    """One participant. Made by `join`."""

    def __init__(self, fleet: Fleet, socket: aiohttp.ClientWebSocketResponse, *, data: bool, expect_frames: bool) -> None:
        self._fleet = fleet
        self._socket = socket
        self._data = data
        self._expect_frames = expect_frames
        self._changed = asyncio.Event()
        self._publisher: Link | None = None
        self._subscriber: Link | None = None
        self._versions = {PUBLISHER: 0, SUBSCRIBER: 0}
        self._early_candidates: dict[int, list[tuple[str, int]]] = {PUBLISHER: [], SUBSCRIBER: []}
        self._tasks: list[asyncio.Task[None]] = []
        self._answer: sdp.Description | None = None
        self.sid = ""
        self.identity = ""
        self.failure = ""
        self.publications: list[Publication] = []
        self.participants: dict[str, models.ParticipantInfo] = {}
        self.receivers: dict[str, int] = {}
        """Track sid: receiver id of the LoadGenerator."""
        self.messages: list[tuple[str, str, bytes]] = []
        """(identity of the sender, topic, payload) of user data packets."""
        self.timings_s: dict[str, float] = {}
        """Seconds from the start of `join` to: joined, published, connected."""
        self._mids: dict[str, tuple[str, int]] = {}
        self._started = time.monotonic()

    # What a test does.

    @classmethod
    async def join(cls, fleet: Fleet, token: str, *, publish: Sequence[Track] = (), data: bool = False,
                   auto_subscribe: bool = True, expect_frames: bool = True, timeout_s: float = WAIT_S) -> "Bot":
        """Return a bot whose tracks are published and whose transports are connected.

        `expect_frames`: media comes from bots of the same seed and is checked frame by frame.   Errors: JoinError.
        """
        started = time.monotonic()
        query = {"access_token": token, "protocol": str(PROTOCOL), "sdk": "python", "version": "0.0.1",
                 "auto_subscribe": "1" if auto_subscribe else "0", "adaptive_stream": "0"}  # fmt: skip
        try:
            async with asyncio.timeout(timeout_s):
                patience = aiohttp.ClientWSTimeout(ws_close=1.0)
                socket = await fleet.http.ws_connect(f"{fleet.url}/rtc", params=query, max_msg_size=0, timeout=patience)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise JoinError(f"no connection: {error!r}") from error
        bot = cls(fleet, socket, data=data, expect_frames=expect_frames)
        bot._started = started
        bot._tasks.append(asyncio.create_task(bot._listen()))
        try:
            await bot.until(lambda: bot.sid != "", timeout_s)
            bot.timings_s["joined"] = time.monotonic() - started
            if publish or data:
                await bot._publish(publish, timeout_s)
            await bot.until(bot._is_connected, timeout_s)
        except JoinError:
            await bot.leave()
            raise
        bot.timings_s["connected"] = time.monotonic() - started
        return bot

    async def until(self, holds: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait for something to become true.   Errors: JoinError when the bot fails or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    self._check()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise JoinError(f"not in {timeout_s} s; {self.state()}") from None

    @property
    def flowing(self) -> int:
        """How many tracks of others arrive."""
        seen = self._fleet.flowing if self._expect_frames else self._fleet.bound
        return sum(receiver in seen for receiver in self.receivers.values())

    def send(self, payload: bytes, *, topic: str = "bot", reliable: bool = True) -> None:
        """Send a user data packet to everybody.   Errors: JoinError while the channel is not open."""
        label = "_reliable" if reliable else "_lossy"
        if not self.can_send(label):
            raise JoinError("the data channel is not open")
        kind = models.DataPacket.Kind.RELIABLE if reliable else models.DataPacket.Kind.LOSSY
        packet = models.DataPacket(kind=kind, user=models.UserPacket(payload=payload, topic=topic))
        assert self._publisher is not None and self._publisher.channels is not None
        self._publisher.channels.send(label, packet.SerializeToString())

    def can_send(self, label: str = "_reliable") -> bool:
        """Whether our data channel is open."""
        link = self._publisher
        return link is not None and link.channels is not None and link.channels.is_open(label)

    async def subscribe(self, track_sids: Sequence[str], wanted: bool = True) -> None:
        """Ask for tracks, or for their end."""
        await self._send(subscription=rtc.UpdateSubscription(track_sids=list(track_sids), subscribe=wanted))

    async def leave(self) -> None:
        """Say goodbye and free everything; may be called at any time."""
        for task in self._tasks:
            task.cancel()
        if not self._socket.closed:
            goodbye = rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED, action=rtc.LeaveRequest.Action.DISCONNECT)
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self._send(leave=goodbye)
        for link in (self._publisher, self._subscriber):
            if link is not None:
                await link.close()
        for receiver in self.receivers.values():
            self._fleet.forget(receiver)
        with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
            await self._socket.close()

    def state(self) -> str:
        """Return how far it got, for error texts."""
        def of(link: Link | None) -> str:
            return "none" if link is None else link.failure or ("connected" if link.is_connected else "connecting")

        sids = [publication.sid for publication in self.publications]
        return (f"{self.identity or '?'} {self.sid or 'not joined'}, published {sids}, publisher {of(self._publisher)}, "
                f"subscriber {of(self._subscriber)}, {self.flowing} of {len(self.receivers)} tracks flow, "
                f"{len(self.participants)} others, {len(self.messages)} messages")  # fmt: skip

    # Signalling.

    async def _send(self, **message: Any) -> None:
        await self._socket.send_bytes(rtc.SignalRequest(**message).SerializeToString())

    async def _listen(self) -> None:
        async for frame in self._socket:
            if frame.type is not aiohttp.WSMsgType.BINARY:
                continue
            response = rtc.SignalResponse.FromString(frame.data)
            kind = response.WhichOneof("message")
            handler = getattr(self, f"_on_{kind}", None)
            if handler is not None:
                done = handler(getattr(response, kind))
                if done is not None:
                    try:
                        await done
                    except (sdp.SdpError, ValueError, OSError) as error:
                        self.failure = f"{kind}: {error}"
                self._changed.set()
        self.failure = self.failure or "the server closed the signalling connection"
        self._changed.set()

    def _on_join(self, join: rtc.JoinResponse) -> None:
        self.sid, self.identity = join.participant.sid, join.participant.identity
        self.participants = {other.sid: other for other in join.other_participants}
        self._tasks.append(asyncio.create_task(self._ping(max(1, join.ping_interval or 5))))

    def _on_update(self, update: rtc.ParticipantUpdate) -> None:
        for info in update.participants:
            if info.sid == self.sid:
                continue
            if info.state == models.ParticipantInfo.State.DISCONNECTED:
                self.participants.pop(info.sid, None)
            else:
                self.participants[info.sid] = info

    def _on_leave(self, leave: rtc.LeaveRequest) -> None:
        self.failure = f"the server ended it: {models.DisconnectReason.Name(leave.reason)}"

    def _on_track_published(self, published: rtc.TrackPublishedResponse) -> None:
        for publication in self.publications:
            if publication.offered.track_id == published.cid:
                publication.sid = published.track.sid

    def _on_request_response(self, response: rtc.RequestResponse) -> None:
        if response.reason not in (rtc.RequestResponse.Reason.OK, rtc.RequestResponse.Reason.QUEUED):
            self.failure = f"refused: {response.message or response.reason}"

    def _on_trickle(self, trickle: rtc.TrickleRequest) -> None:
        found = sdp.take_candidate(json.loads(trickle.candidateInit).get("candidate", ""))
        if found is None:
            return
        link = self._publisher if trickle.target == PUBLISHER else self._subscriber
        if link is None:
            self._early_candidates[trickle.target].append(found[1])
        else:
            link.add_candidate(found[1])

    def _on_subscribed_quality_update(self, update: rtc.SubscribedQualityUpdate) -> None:
        """Switch the layers that somebody wants on and the others off."""
        publication = next((p for p in self.publications if p.sid == update.track_sid), None)
        if publication is None or publication.sender is None or len(publication.track.layers) < 2:
            return
        for codec in update.subscribed_codecs:
            for wanted in codec.qualities:
                if wanted.quality < len(publication.track.layers):
                    self._fleet.load.set_encoding(publication.sender, wanted.quality, wanted.enabled)

    async def _ping(self, interval_s: float) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            while True:
                await asyncio.sleep(interval_s)
                await self._send(ping_req=rtc.Ping(timestamp=int(time.time() * 1000)))

    # Publishing: we offer.

    async def _publish(self, tracks: Sequence[Track], timeout_s: float) -> None:
        stream = secrets.token_hex(8)
        self._publisher = Link(self._fleet, controlling=True, data=self._data, opens_channels=True,
                               on_change=self._changed.set, on_message=self._on_data)
        for place, track in enumerate(tracks):
            layers = max(1, len(track.layers))
            numbers = [secrets.randbelow(0xFFFFFFFE) + 1 for _ in range(2 * layers)]
            offered = sdp.Published(
                mid=str(place), kind=track.kind, codec=track.codec, stream_id=stream, track_id=secrets.token_hex(8), cname=stream,
                ssrcs=tuple(numbers[:layers]), rtx_ssrcs=tuple(numbers[layers:] if track.kind == "video" else [None]),
                rids=RIDS[:layers] if layers > 1 else (),
            )  # fmt: skip
            self.publications.append(Publication(track, offered))
            await self._send(add_track=_add_track(track, offered))
        offer = sdp.write_offer(self._publisher.local, [p.offered for p in self.publications], data=self._data)
        await self._send(offer=rtc.SessionDescription(type="offer", sdp=offer, id=1))
        await self.until(lambda: self._answer is not None and all(p.sid for p in self.publications), timeout_s)
        self.timings_s["published"] = time.monotonic() - self._started
        await self.until(lambda: self._publisher is not None and self._publisher.is_connected, timeout_s)
        self._start_senders()

    def _on_answer(self, description: rtc.SessionDescription) -> None:
        answer = sdp.parse(description.sdp)
        assert self._publisher is not None
        # RFC 8842 §5.3: the answerer chose; active is the client.
        role = "server" if answer.setup == "active" else "client"
        self._publisher.set_remote([*answer.candidates, *self._early_candidates[PUBLISHER]], answer.ufrag, answer.password,
                                   answer.fingerprints, role)
        self._answer = answer

    def _start_senders(self) -> None:
        assert self._publisher is not None and self._answer is not None
        endpoint, load = self._publisher.endpoint, self._fleet.load
        sections = {p.offered.mid: self._answer.section(p.offered.mid) for p in self.publications}
        extensions = {uri: number for section in sections.values() if section for uri, number in section.extensions.items()}
        load.set_extensions(endpoint, extensions)
        for publication in self.publications:
            offered, section = publication.offered, sections[publication.offered.mid]
            payload_type, rtx = sdp.PAYLOAD_TYPES[offered.codec]
            taken = [] if section is None or not section.is_live else [c for c in section.codecs if c[0] == payload_type]
            if not taken or section is None or section.direction not in ("recvonly", "sendrecv"):
                raise JoinError(f"the server does not take our {offered.codec}")
            spec = publication.track.spec
            if offered.kind == "audio":
                publication.sender = load.add_sender(endpoint, "audio", offered.ssrcs[0], payload_type, mid=offered.mid, **spec)
                continue
            rtx_payload_type = rtx if taken[0][3] is not None else None
            encodings = [
                {"ssrc": ssrc, "rtx_ssrc": rtx_ssrc if rtx_payload_type else None, "rid": rid, "width": width, "height": height,
                 "bitrate_bps": bitrate}
                for (width, height, bitrate), ssrc, rtx_ssrc, rid in zip(
                    publication.track.layers, offered.ssrcs, offered.rtx_ssrcs, offered.rids or ("",), strict=True)
            ]  # fmt: skip
            publication.sender = load.add_sender(endpoint, "video", None, payload_type, codec=offered.codec, mid=offered.mid,
                                                 rtx_payload_type=rtx_payload_type, encodings=encodings, **spec)

    # Subscribing: the server offers.

    async def _on_offer(self, description: rtc.SessionDescription) -> None:
        offer = sdp.parse(description.sdp)
        if self._subscriber is None:
            # RFC 8445 §6.1.1: the offerer controls, unless it is lite.
            self._subscriber = Link(self._fleet, controlling=offer.is_lite, data=self._data, opens_channels=False,
                                    on_change=self._changed.set, on_message=self._on_data)
        link = self._subscriber
        answer = sdp.write_answer(link.local, offer, setup="active", version=self._versions[SUBSCRIBER])
        self._versions[SUBSCRIBER] += 1
        self._take_sections(link, offer, description.mid_to_track_id)
        await self._send(answer=rtc.SessionDescription(type="answer", sdp=answer, id=description.id))
        link.set_remote([*offer.candidates, *self._early_candidates[SUBSCRIBER]], offer.ufrag, offer.password, offer.fingerprints, "client")

    def _take_sections(self, link: Link, offer: sdp.Description, track_by_mid: Any) -> None:
        load = self._fleet.load
        live = [s for s in offer.sections if s.is_live and s.kind in ("audio", "video") and s.direction in ("sendonly", "sendrecv")]
        load.set_extensions(link.endpoint, {uri: number for section in live for uri, number in section.extensions.items()})
        wanted = {section.mid: track_by_mid.get(section.mid) or section.msid[1] for section in live}
        for mid, (track_sid, receiver) in list(self._mids.items()):
            if wanted.get(mid) != track_sid:
                load.remove_receiver(receiver)
                self._fleet.forget(receiver)
                del self._mids[mid]
                if self.receivers.get(track_sid) == receiver:
                    del self.receivers[track_sid]
        for section in live:
            if section.mid in self._mids:
                continue
            ssrc, rtx_ssrc = section.ssrcs
            receiver = load.add_receiver(link.endpoint, section.kind, section.codecs, ssrc=ssrc, rtx_ssrc=rtx_ssrc,
                                         mid=section.mid, expect_frames=self._expect_frames)
            self._mids[section.mid] = (wanted[section.mid], receiver)
            self.receivers[wanted[section.mid]] = receiver
            self._fleet.on_flow[receiver] = self._changed.set

    # Both.

    def _on_data(self, _label: str, data: bytes) -> None:
        packet = models.DataPacket.FromString(data)
        if packet.WhichOneof("value") == "user":
            self.messages.append((packet.participant_identity, packet.user.topic, packet.user.payload))
            self._changed.set()

    def _is_connected(self) -> bool:
        links = [link for link in (self._publisher, self._subscriber) if link is not None]
        return self._subscriber is not None and all(link.is_connected for link in links) and (not self._data or self.can_send())

    def _check(self) -> None:
        for link in (self._publisher, self._subscriber):
            if link is not None and link.failure:
                self.failure = link.failure
        if self.failure:
            raise JoinError(f"{self.failure}; {self.state()}")


def _add_track(track: Track, offered: sdp.Published) -> rtc.AddTrackRequest:
    request = rtc.AddTrackRequest(cid=offered.track_id, name=track.kind, encryption=track.encryption)
    # RED wraps frames, which a receiver of encrypted ones cannot take apart.
    request.disable_red = track.encryption != models.Encryption.NONE
    if track.kind == "audio":
        request.type, request.source = models.TrackType.AUDIO, models.TrackSource.MICROPHONE
        return request
    request.type, request.source = models.TrackType.VIDEO, models.TrackSource.CAMERA
    request.width, request.height, _ = track.layers[-1]
    for quality, ((width, height, bitrate), ssrc) in enumerate(zip(track.layers, offered.ssrcs, strict=True)):
        request.layers.append(models.VideoLayer(quality=quality, width=width, height=height, bitrate=bitrate, ssrc=ssrc))
    return request

"""The participant: a load test's bot whose media are recorded frames. How it is used stands in the package's docstring."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from livekit.protocol import models

from loadtests.bot import Bot, JoinError, Publication, Track
from loadtests.fleet import Fleet
from relay.e2ee.errors import OpenFailed
from tests.interop.recorded.clips import Clip
from tests.interop.recorded.formats import CLEAR, KEYS_TOPIC, Format
from tests.interop.recorded.media import RecordedMedia
from tests.interop.recorded.streams import Counts

WAIT_S = 20.0


@dataclass(frozen=True)
class Sent:
    codec: str
    track_sid: str
    frames: int
    keyframes: int
    repaired: int


@dataclass(frozen=True)
class Data:
    identity: str
    topic: str
    payload: bytes
    was_encrypted: bool = field(compare=False, default=False)


class _Bot(Bot):
    """Bot with frames of a format. Everything of signalling is the parent's."""

    _fleet: "_Fleet"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.data: list[Data] = []
        self.data_failures: list[str] = []

    def _start_senders(self) -> None:
        """Keys are announced before the first frame, so the channel comes first."""
        format_, media = self._fleet.format, self._fleet.media
        for publication in self.publications:
            ssrc = publication.offered.ssrcs[0]
            media.seal_of[ssrc] = format_.seal(self.identity, publication.sid, publication.track.codec, ssrc)
        super()._start_senders()

    async def announce_and_play(self) -> None:
        await self.until(self.can_send)
        for publication in self.publications:
            announcement = self._fleet.format.announcement(publication.sid)
            if announcement:
                self.send(announcement, topic=KEYS_TOPIC)
        for publication in self.publications:
            assert publication.sender is not None
            self._fleet.media.senders[publication.sender].start()

    def _take_sections(self, *arguments: Any) -> None:
        super()._take_sections(*arguments)
        owners = {track.sid: info.identity for info in self.participants.values() for track in info.tracks}
        for track_sid, receiver in self.receivers.items():
            if track_sid in owners:
                self._fleet.media.receivers[receiver].belongs_to(owners[track_sid], track_sid)

    def _on_data(self, _label: str, data: bytes) -> None:
        packet = models.DataPacket.FromString(data)
        was_encrypted = packet.WhichOneof("value") == "encrypted_packet"
        try:
            packet = self._fleet.format.open_data(packet)
        except OpenFailed as error:
            self.data_failures.append(type(error).__name__)
        if packet.WhichOneof("value") == "user":
            self.data.append(Data(packet.participant_identity, packet.user.topic, packet.user.payload, was_encrypted))
        self._changed.set()

    def send_sealed(self, payload: bytes, topic: str, reliable: bool) -> None:
        label = "_reliable" if reliable else "_lossy"
        kind = models.DataPacket.Kind.RELIABLE if reliable else models.DataPacket.Kind.LOSSY
        packet = models.DataPacket(kind=kind, user=models.UserPacket(payload=payload, topic=topic))
        assert self._publisher is not None and self._publisher.channels is not None
        self._publisher.channels.send(label, self._fleet.format.seal_data(self.identity, packet).SerializeToString())


class _Fleet(Fleet):
    def __init__(self, url: str, format_: Format) -> None:
        self.format = format_
        self.media = RecordedMedia(format_)
        super().__init__(url, load=self.media)


class Caller:
    """One participant of one call; joins on entering and leaves on leaving.   Errors: JoinError with the server's sentence."""

    def __init__(self, url: str, token: str, format_: Format = CLEAR, *, publish: Sequence[Clip] = (),
                 claims: int | None = None) -> None:
        """`claims` is the TrackInfo.Encryption that tracks are announced with, where it is not to be the format's."""
        self._url, self._token, self._format = url, token, format_
        encryption = format_.encryption if claims is None else claims
        self._tracks = [self._track(clip, encryption) for clip in publish]
        self._bot: _Bot | None = None

    @staticmethod
    def _track(clip: Clip, encryption: int) -> Track:
        layers = ((clip.width, clip.height, 300_000),) if clip.kind == "video" else ()
        return Track(clip.kind, clip.codec, layers, {"clip": clip}, encryption)

    async def __aenter__(self) -> Self:
        self._fleet = _Fleet(self._url, self._format)
        await self._fleet.__aenter__()
        try:
            self._bot = await _Bot.join(self._fleet, self._token, publish=self._tracks, data=True)
            await self._bot.announce_and_play()
        except BaseException:
            await self._fleet.__aexit__()
            raise
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.bot.leave()
        await self._fleet.__aexit__()

    @property
    def bot(self) -> _Bot:
        assert self._bot is not None, "use the caller as a context manager"
        return self._bot

    async def until(self, holds: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait for something to become true.   Errors: JoinError when the call ends or the time is over."""
        try:
            await self.bot.until(holds, timeout_s)
        except JoinError as error:
            raise JoinError(f"{error}; received {self.everything()}, data {self.bot.data}, {self.bot.data_failures}") from None

    @property
    def data(self) -> list[Data]:
        return self.bot.data

    def send_data(self, payload: bytes, *, topic: str = "bot", reliable: bool = True) -> None:
        self.bot.send_sealed(payload, topic, reliable)

    def sent(self) -> list[Sent]:
        """What was sent so far, by publication."""

        def of(publication: Publication) -> Sent:
            assert publication.sender is not None
            sender = self._fleet.media.senders[publication.sender]
            return Sent(sender.clip.codec, publication.sid, sender.frames, sender.keyframes, sender.repaired)

        return [of(publication) for publication in self.bot.publications]

    def received(self, identity: str, kind: str) -> Counts:
        """What came of a participant's newest track of that kind; zeros before anything did."""
        return next((counts for who, what, counts in reversed(self.everything()) if (who, what) == (identity, kind)), Counts())

    def everything(self) -> list[tuple[str, str, Counts]]:
        """(identity, kind, counts) of every track so far, in the order they came."""
        return [(r.whose[0], r.kind, r.counts) for r in self._fleet.media.receivers.values() if r.whose is not None]

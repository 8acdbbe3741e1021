"""The frame formats as a participant uses them: sealing what it sends, opening what it gets, keys by publication."""

import json
import secrets
from collections.abc import Callable
from typing import Protocol

from livekit.protocol import models

from relay.e2ee import framing, linkkey, livekit_gcm, sframe
from relay.e2ee.datapackets import DataSealer, LinkDataKeys, open_packet
from tests.interop.recorded.payloads import sealed_obu_frames

Seal = Callable[[bytes, int, bool], bytes]
"""(frame, RTP timestamp, is it a keyframe) to the sealed frame."""
Open = Callable[[bytes], bytes | None]
KEYS_TOPIC = "veil.keys"


class Format(Protocol):
    """What a call's frames and data packets look like. `encryption` is the TrackInfo's; tokens with `attributes` ask for
    a room of this kind."""

    encryption: int
    attributes: dict[str, str]

    def seal(self, identity: str, track_sid: str, codec: str, ssrc: int) -> Seal: ...

    def open(self, identity: str, track_sid: str, codec: str) -> Open:
        """Errors: OpenFailed."""

    def announcement(self, track_sid: str) -> bytes:
        """What goes to everybody on `veil.keys` before the first frame; nothing when empty."""

    def seal_data(self, identity: str, packet: models.DataPacket) -> models.DataPacket: ...

    def open_data(self, packet: models.DataPacket) -> models.DataPacket: ...

    def split(self, codec: str, frame: bytes) -> list[bytes]:
        """Return what was sealed one by one in what a depacketiser gives as one."""


class _Clear:
    encryption = models.Encryption.NONE
    attributes: dict[str, str] = {}

    def seal(self, identity: str, track_sid: str, codec: str, ssrc: int) -> Seal:
        return lambda frame, _rtp_ts, _is_keyframe: frame

    def open(self, identity: str, track_sid: str, codec: str) -> Open:
        return lambda frame: frame

    def announcement(self, track_sid: str) -> bytes:
        return b""

    def seal_data(self, identity: str, packet: models.DataPacket) -> models.DataPacket:
        return packet

    def open_data(self, packet: models.DataPacket) -> models.DataPacket:
        return packet

    def split(self, codec: str, frame: bytes) -> list[bytes]:
        return [frame]


CLEAR: Format = _Clear()


class Passphrase(_Clear):
    """LiveKit GCM under a passphrase that all share; raw bytes are derived as livekit-client does."""

    encryption = models.Encryption.GCM
    attributes = {"veil.e2ee_profile": "shared-passphrase", "veil.frame_format": "livekit_gcm"}

    def __init__(self, secret: str | bytes, *, key_index: int = 0) -> None:
        self._material = livekit_gcm.Material(secret)
        self._key_index = key_index
        self._data = DataSealer.of_material(self._material, key_index=key_index)
        self._ring = livekit_gcm.KeyRing()
        self._ring.set(self._material, key_index)

    def seal(self, identity: str, track_sid: str, codec: str, ssrc: int) -> Seal:
        sealer = livekit_gcm.Sealer(self._material, codec, ssrc, key_index=self._key_index)
        return lambda frame, rtp_ts, _is_keyframe: sealer.seal(frame, rtp_ts)

    def open(self, identity: str, track_sid: str, codec: str) -> Open:
        return lambda sealed: self._ring.open_frame(codec, sealed)

    def seal_data(self, identity: str, packet: models.DataPacket) -> models.DataPacket:
        return self._data.seal(packet)

    def open_data(self, packet: models.DataPacket) -> models.DataPacket:
        return open_packet(self._ring, packet)


class LinkKey(_Clear):
    """SFrame under an invite link's key: a base key and a KID for each publication."""

    encryption = models.Encryption.CUSTOM
    attributes = {"veil.e2ee_profile": "shared-passphrase", "veil.frame_format": "sframe"}

    def __init__(self, link_key: bytes | None = None) -> None:
        self.link_key = link_key or secrets.token_bytes(linkkey.LINK_KEY_BYTES)
        self.kids: dict[str, int] = {}

    def seal(self, identity: str, track_sid: str, codec: str, ssrc: int) -> Seal:
        kid = self.kids[track_sid] = linkkey.new_kid()
        sealer = sframe.Sealer(sframe.FrameKey(linkkey.publication_key(self.link_key, identity, track_sid), kid))
        return lambda frame, _rtp_ts, is_keyframe: framing.seal(sealer, codec, frame, is_keyframe=is_keyframe)

    def open(self, identity: str, track_sid: str, codec: str) -> Open:
        opener = linkkey.LinkOpener(self.link_key, identity, track_sid)
        return lambda sealed: framing.open_frame(opener, codec, sealed)

    def seal_data(self, identity: str, packet: models.DataPacket) -> models.DataPacket:
        return DataSealer.of_link(self.link_key, identity).seal(packet)

    def open_data(self, packet: models.DataPacket) -> models.DataPacket:
        return open_packet(LinkDataKeys(self.link_key, packet.participant_identity), packet)

    def announcement(self, track_sid: str) -> bytes:
        return json.dumps({"track_sid": track_sid, "kids": [self.kids[track_sid]] * 2}).encode()

    def split(self, codec: str, frame: bytes) -> list[bytes]:
        return sealed_obu_frames(frame) if codec == "av1" else [frame]

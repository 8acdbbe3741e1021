"""Stands where `loadtests.fleet.Fleet` expects its load generator: the same calls, with recorded frames behind them."""

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiortc.rtp import RTCP_PSFB_FIR, RTCP_PSFB_PLI, RTCP_RTPFB_NACK, RtcpPacket, RtcpPsfbPacket, RtcpRtpfbPacket

from loadtests.sdp import DEPENDENCY_DESCRIPTOR, MID
from relaycore.loadgen import EventKind
from tests.interop.recorded.formats import Format, Seal
from tests.interop.recorded.streams import Packet, Receiver, Sender
from tests.interop.recorded.wire import Wire

POLL_S = 0.02
Event = tuple[EventKind, int, int, int, bytes | None]


class RecordedMedia:
    """One decoding thread, one loop; ids count up over endpoints, senders and receivers alike."""

    def __init__(self, format_: Format) -> None:
        self._format = format_
        self._ids = 0
        self._events: list[Event] = []
        self._wires: dict[int, Wire] = {}
        self._extensions: dict[int, dict[str, int]] = {}
        self._bound: dict[int, dict[int, int]] = {}
        self._owner: dict[int, int] = {}
        self.senders: dict[int, Sender] = {}
        self.receivers: dict[int, Receiver] = {}
        self.seal_of: dict[int, Seal] = {}
        """SSRC: what seals its frames; set before its sender is added."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="decoder")
        self._poller: asyncio.Task[None] | None = None
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)

    # What a fleet does.

    def start(self) -> None:
        self._poller = asyncio.create_task(self._poll())

    def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
        for endpoint in list(self._wires):
            self.remove_endpoint(endpoint)
        self._pool.shutdown()
        os.close(self.event_fd)
        self.event_fd = -1

    def take_events(self) -> list[Event]:
        os.eventfd_read(self.event_fd)
        events, self._events = self._events, []
        return events

    # What a link does.

    def add_endpoint(self, local_ip: str, _remote: None, ufrag: str, password: str, *, controlling: bool = True) -> int:
        """ICE servers are lite here, so that we always control."""
        if not controlling:
            raise ValueError("this end only controls; the server is to be ICE-lite")
        endpoint = self._new_id()
        self._wires[endpoint] = Wire(
            local_ip, ufrag, password,
            on_connected=lambda: self._emit(EventKind.ICE_CONNECTED, endpoint),
            on_dtls=lambda datagram: self._emit(EventKind.DATAGRAM, endpoint, 0, datagram),
            on_rtp=lambda data: self._on_rtp(endpoint, data),
            on_rtcp=lambda data: self._on_rtcp(endpoint, data),
        )  # fmt: skip
        self._bound[endpoint], self._extensions[endpoint] = {}, {}
        return endpoint

    def local_address(self, endpoint: int) -> tuple[str, int]:
        return self._wires[endpoint].address

    def set_ice(self, endpoint: int, remote: tuple[str, int], ufrag: str, password: str) -> None:
        self._wires[endpoint].set_ice(remote, ufrag, password)

    def set_srtp(self, endpoint: int, *keys: Any) -> None:
        self._wires[endpoint].set_srtp(*keys)

    def send_datagram(self, endpoint: int, datagram: bytes) -> None:
        if endpoint in self._wires:
            self._wires[endpoint].send_dtls(datagram)

    def remove_endpoint(self, endpoint: int) -> None:
        for number in [number for number, owner in self._owner.items() if owner == endpoint]:
            if number in self.senders:
                self.senders[number].stop()
            self._owner.pop(number)
        self._wires.pop(endpoint).close()

    # What a bot does.

    def set_extensions(self, endpoint: int, id_by_uri: Mapping[str, int]) -> None:
        names = {MID: "mid", DEPENDENCY_DESCRIPTOR: "depdesc"}
        self._extensions[endpoint] |= {names[uri]: number for uri, number in id_by_uri.items() if uri in names}

    def add_sender(self, endpoint: int, _kind: str, ssrc: int | None, payload_type: int, *, clip: Any, mid: str,
                   rtx_payload_type: int | None = None, encodings: Any = (), codec: str = "opus") -> int:
        number, wire = self._new_id(), self._wires[endpoint]
        if ssrc is None:
            (encoding,) = encodings
            ssrc = encoding["ssrc"]
            rtx = (encoding["rtx_ssrc"], rtx_payload_type) if rtx_payload_type is not None else None
        else:
            rtx = None
        assert codec == clip.codec
        self._owner[number] = endpoint
        self.senders[number] = Sender(
            clip, self.seal_of[ssrc], wire.send_rtp, wire.send_rtcp,
            ssrc=ssrc, payload_type=payload_type, rtx=rtx, extensions=self._extensions[endpoint], mid=mid,
        )  # fmt: skip
        return number

    def add_receiver(self, endpoint: int, _kind: str, codecs: Any, *, ssrc: int | None, rtx_ssrc: int | None, mid: str,
                     expect_frames: bool) -> int:
        number = self._new_id()
        by_type = {payload_type: (name, rtx) for payload_type, name, _clock_hz, rtx in codecs}
        receiver = Receiver(by_type, self._format, self._wires[endpoint].send_rtcp, self._pool,
                            lambda: self._emit(EventKind.FIRST_FRAME, endpoint, number))
        self.receivers[number] = receiver
        self._owner[number] = endpoint
        if ssrc is None:
            raise ValueError("this end takes streams whose SSRC the offer names")
        for of in (ssrc, rtx_ssrc):
            if of is not None:
                self._bound[endpoint][of] = number
        return number

    def remove_receiver(self, receiver: int) -> None:
        endpoint = self._owner.pop(receiver)
        self._bound[endpoint] = {ssrc: number for ssrc, number in self._bound[endpoint].items() if number != receiver}

    # Inside.

    def _new_id(self) -> int:
        self._ids += 1
        return self._ids

    def _emit(self, kind: EventKind, endpoint: int, subject: int = 0, payload: bytes | None = None) -> None:
        if self.event_fd < 0:
            # Stopped; what was still under way interests nobody.
            return
        self._events.append((kind, endpoint, time.monotonic_ns(), subject, payload))
        os.eventfd_write(self.event_fd, 1)

    def _on_rtp(self, endpoint: int, data: bytes) -> None:
        packet = Packet.of(data)
        if packet is None:
            return
        number = self._bound[endpoint].get(packet.ssrc)
        if number is not None:
            self.receivers[number].take(packet)

    def _on_rtcp(self, endpoint: int, data: bytes) -> None:
        try:
            packets = RtcpPacket.parse(data)
        except ValueError:
            return
        senders = {s.ssrc: s for number, s in self.senders.items() if self._owner.get(number) == endpoint}
        for packet in packets:
            if isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
                # RFC 5104 §4.3.1.1: FIR names its target inside.
                ssrc = packet.media_ssrc if packet.fmt == RTCP_PSFB_PLI else int.from_bytes(packet.fci[:4], "big")
                if ssrc in senders:
                    senders[ssrc].request_keyframe()
            elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK and packet.media_ssrc in senders:
                for seq in packet.lost:
                    senders[packet.media_ssrc].repair(seq)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            for number, receiver in self.receivers.items():
                if number in self._owner:
                    receiver.poll(time.monotonic() * 1000)

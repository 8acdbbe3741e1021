"""Data channels of one bot's transport: aiortc's SCTP over our DTLS.

aiortc brings codecs into the process, which is no harm here (a load test is not the relay) but takes 50 MB, so this module
is loaded only when data channels are asked for.
"""

from collections.abc import Callable

from aiortc import RTCDataChannel, RTCDataChannelParameters, RTCSctpTransport
from aiortc.rtcsctptransport import RTCSctpCapabilities

from loadtests.sdp import MAX_MESSAGE_BYTES

SCTP_PORT = 5000
LABELS = {"_reliable": RTCDataChannelParameters(label="_reliable"),
          "_lossy": RTCDataChannelParameters(label="_lossy", ordered=False, maxRetransmits=0)}  # fmt: skip


class _Path:
    """Stands where aiortc expects its DTLS transport."""

    def __init__(self, role: str, send: Callable[[bytes], None]) -> None:
        self.state = "connected"
        self._role = role
        self._send = send

    def _register_data_receiver(self, receiver: object) -> None:
        pass

    def _unregister_data_receiver(self, receiver: object) -> None:
        self.state = "closed"

    async def _send_data(self, data: bytes) -> None:
        if self.state == "closed":
            raise ConnectionError
        self._send(data)


class Channels:
    """The association and its channels. `on_message(label, data)` for every whole message."""

    def __init__(self, role: str, send: Callable[[bytes], None], on_message: Callable[[str, bytes], None],
                 on_open: Callable[[], None]) -> None:
        self._sctp = RTCSctpTransport(_Path(role, send), SCTP_PORT)
        self._channels: dict[str, RTCDataChannel] = {}
        self._on_message = on_message
        self._on_open = on_open
        self._sctp.on("datachannel", self._adopt)

    async def start(self, *, opens: bool) -> None:
        """Begin; `opens`: we open LiveKit's channels, else the other end does."""
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), SCTP_PORT)
        if opens:
            for parameters in LABELS.values():
                self._adopt(RTCDataChannel(self._sctp, parameters))

    async def receive(self, data: bytes) -> None:
        """Take one SCTP packet."""
        await self._sctp._handle_data(data)

    def is_open(self, label: str) -> bool:
        return label in self._channels and self._channels[label].readyState == "open"

    def send(self, label: str, data: bytes) -> None:
        """Send one binary message.   Errors: aiortc's InvalidStateError while the channel is not open."""
        self._channels[label].send(data)

    async def stop(self) -> None:
        await self._sctp.stop()

    def _adopt(self, channel: RTCDataChannel) -> None:
        self._channels[channel.label] = channel
        channel.on("message", lambda data: self._on_message(channel.label, data if isinstance(data, bytes) else data.encode()))
        channel.on("open", self._on_open)
        if channel.readyState == "open":
            self._on_open()

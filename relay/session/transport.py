"""One ICE/DTLS/SCTP bundle as a sans-IO object: datagrams and `now_ns` in, events out.

Spec: RFC 9143 (what a bundle is), RFC 8827 §6.5, RFC 8261. Connectivity checks and SRTP are the data plane's; this
is what must be agreed before it can work, and the data channels.

How to drive it: after every call, and at `next_timeout_ns`, call `poll` on the event loop's thread and do what the
events say. `receive_dtls` may run in another thread: it does TLS and queues what it decrypted; SCTP runs in `poll`
alone. From handing it to that thread until it has returned, only `poll` (which then does nothing) and `close` (which
then waits for the next poll) may be called. A DTLS client sends its first flight at the first poll after `set_remote`,
so poll first when the data plane reports a valid ICE tuple; otherwise that flight is lost and repeated.
"""

from collections.abc import Sequence
from typing import Literal
from weakref import WeakKeyDictionary

from OpenSSL import SSL

from relay.session import dcep
from relay.session.certificate import Certificate, Fingerprints
from relay.session.datachannel import DataChannels
from relay.session.dtls import MAX_DATAGRAM_BYTES, Dtls, make_context
from relay.session.errors import SessionError
from relay.session.events import DatagramReady, Event, HandshakeFailed, SrtpKeysReady, TransportClosed
from relay.session.ice import IceCredentials
from relay.session.states import TRANSPORT, AssociationState, Machine, TransportState, TransportTrigger

MAX_MESSAGE_BYTES = 65_536
"""What we announce in `a=max-message-size`; LiveKit clients send 64,000 at most."""

MAX_EARLY_DATAGRAMS = 4
"""A ClientHello is one or two; it may overtake the answer that says which fingerprint to expect."""

MAX_WAITING_PACKETS = 512
"""Decrypted packets between two polls; what is above is dropped and SCTP repeats it."""

BUSY_RETRY_NS = 5_000_000

_contexts: WeakKeyDictionary[Certificate, SSL.Context] = WeakKeyDictionary()


class Transport:
    """One bundle, from made to closed. `close` must be called in the end, whatever happened before."""

    def __init__(self, certificate: Certificate, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._certificate = certificate
        self._ice = IceCredentials.fresh()
        self._machine = Machine(TRANSPORT, TransportState.NEW)
        self._receiving = False
        self._close_wanted = False
        self._dtls: Dtls | None = None
        self._agreed: tuple[tuple[tuple[str, str], ...], str] | None = None
        self._early: list[bytes] = []
        self._channels = DataChannels(max_message_bytes)
        self._events: list[Event] = []
        self._dropped_packets = 0
        self.next_timeout_ns: int | None = None

    @property
    def ufrag(self) -> str:
        """The local ICE user name fragment."""
        return self._ice.ufrag

    @property
    def password(self) -> str:
        """The local ICE password; never to be logged."""
        return self._ice.password

    @property
    def fingerprint(self) -> str:
        """Our certificate's, as an SDP line wants it: "sha-256 AB:CD…"."""
        return self._certificate.fingerprint

    @property
    def state(self) -> TransportState:
        """Where the bundle is."""
        return self._machine.state

    @property
    def association_state(self) -> AssociationState:
        """Where its data channels' association is."""
        return self._channels.state

    @property
    def handshaking(self) -> bool:
        """Whether the next datagram may cost a signature, so that a thread is worth its while."""
        return self.state is TransportState.CONNECTING

    @property
    def ignored_datagrams(self) -> int:
        """How many datagrams were no DTLS, not made with our keys, or too late."""
        return self._dtls.ignored_datagrams if self._dtls else 0

    @property
    def counters(self) -> dict[str, int]:
        """What the peer sent that was of no use, by reason."""
        return {
            "ignored_datagrams": self.ignored_datagrams,
            "dropped_packets": self._dropped_packets,
            **self._channels.counters,
        }

    def restart_ice(self) -> None:
        """Take new ICE credentials; DTLS and SRTP keys stay (RFC 8445 §9)."""
        self._ice = IceCredentials.fresh()

    def set_remote(self, fingerprints: Sequence[tuple[str, str]], dtls_role: Literal["server", "client"]) -> None:
        """Set what the remote description says: its fingerprints, and the role that leaves for us.

        Both hold for life; saying the same again is allowed, as every renegotiation does.
        Errors: FingerprintRefused, SessionError for a change or a role that is neither.
        """
        if dtls_role not in ("server", "client"):
            raise SessionError(f"a DTLS role is server or client, not {dtls_role!r}")
        spelled = sorted((name.strip().lower(), value.strip().upper()) for name, value in fingerprints)
        agreed = (tuple(spelled), dtls_role)
        if self._agreed is not None:
            if agreed != self._agreed:
                raise SessionError("a transport keeps its DTLS role and the remote certificate; make a new one")
            return
        if self.state is not TransportState.NEW:
            raise SessionError("the transport is closed")
        accepted = Fingerprints(fingerprints)
        context = _contexts.get(self._certificate)
        if context is None:
            context = _contexts[self._certificate] = make_context(self._certificate)
        self._dtls = Dtls(context, dtls_role, accepted)
        self._agreed = agreed
        self._machine.fire(TransportTrigger.REMOTE_SET)
        self._due_now()

    def enable_sctp(self, local_port: int = 5000, remote_port: int = 5000) -> None:
        """Both descriptions have an application section: connect the association when DTLS is up."""
        self._channels.enable(local_port, remote_port)
        self._due_now()

    def receive_dtls(self, datagram: bytes, now_ns: int) -> None:
        """Take one datagram that the data plane judged to be DTLS. Call `poll` afterwards."""
        if self._dtls is None:
            if len(self._early) < MAX_EARLY_DATAGRAMS and len(datagram) <= MAX_DATAGRAM_BYTES:
                self._early.append(datagram)
            return
        self._receiving = True
        try:
            self._replay_early(self._dtls, now_ns)
            self._dtls.receive(datagram, now_ns)
            waiting = self._dtls.received
            if len(waiting) > MAX_WAITING_PACKETS:
                self._dropped_packets += len(waiting) - MAX_WAITING_PACKETS
                del waiting[MAX_WAITING_PACKETS:]
        finally:
            self._receiving = False
        self._due_now()

    def poll(self, now_ns: int) -> list[Event]:
        """Do what is due and return what happened since the last poll; nothing while a thread is in `receive_dtls`."""
        if self._receiving:
            self.next_timeout_ns = now_ns + BUSY_RETRY_NS
            return []
        if self._close_wanted:
            self._close()
        if self._dtls is not None:
            self._poll_dtls(self._dtls, now_ns)
        events, self._events = self._events, []
        due = (self._dtls.next_timeout_ns if self._dtls else None, self._channels.next_timeout_ns)
        self.next_timeout_ns = min((at for at in due if at is not None), default=None)
        return events

    def open_channel(
        self, label: str, *, ordered: bool = True, max_retransmits: int | None = None, protocol: str = ""
    ) -> int:
        """Open a data channel now or when the association is up, and return its number (not the SCTP stream id,
        which depends on a role that may not be known yet).

        Errors: ChannelClosed when the association is gone, TooManyChannels, ValueError for names above 1,024 bytes.
        """
        number = self._channels.open_channel(
            dcep.Open(label=label, protocol=protocol, ordered=ordered, max_retransmits=max_retransmits)
        )
        self._due_now()
        return number

    def send(self, channel: int, data: bytes, *, binary: bool = True) -> None:
        """Queue one message; it leaves at the next poll.   Errors: ChannelClosed, ChannelFull, MessageTooLarge."""
        self._channels.send(channel, data, binary=binary)
        self._due_now()

    def close_channel(self, channel: int) -> None:
        """Close one data channel after what waits in it was sent; `ChannelClosedEvent` follows."""
        self._channels.close_channel(channel)
        self._due_now()

    def buffered_bytes(self, channel: int) -> int:
        """Return how many bytes wait in a channel, 0 for one that is gone."""
        return self._channels.buffered_bytes(channel)

    def close(self) -> None:
        """Say goodbye on both layers; the last datagrams and `TransportClosed` come with the next poll."""
        self._close_wanted = True
        if not self._receiving:
            self._close()
        self._due_now()

    def _close(self) -> None:
        self._close_wanted = False
        already = self.state in (TransportState.CLOSED, TransportState.FAILED)
        self._machine.fire(TransportTrigger.CLOSE)
        self._early.clear()
        self._channels.close()
        self._take_events(self._dtls)
        if self._dtls is not None:
            self._dtls.close()
            self._take_datagrams(self._dtls)
        if not already:
            self._events.append(TransportClosed("closed by us"))

    def _due_now(self) -> None:
        self.next_timeout_ns = 0

    def _replay_early(self, dtls: Dtls, now_ns: int) -> None:
        for datagram in self._early:
            dtls.receive(datagram, now_ns)
        self._early.clear()

    def _poll_dtls(self, dtls: Dtls, now_ns: int) -> None:
        self._replay_early(dtls, now_ns)
        dtls.poll(now_ns)
        self._take_datagrams(dtls)
        if self.state is TransportState.CONNECTING:
            if dtls.failure:
                self._machine.fire(TransportTrigger.HANDSHAKE_LOST)
                self._channels.close()
                self._take_events(dtls)
                self._events.append(HandshakeFailed(dtls.failure))
            elif dtls.connected:
                self._machine.fire(TransportTrigger.HANDSHAKE_DONE)
                if dtls.keys is not None:
                    self._events.append(SrtpKeysReady(dtls.keys))
        if self.state is TransportState.CONNECTED:
            self._poll_channels(dtls, now_ns)
            if dtls.closed:
                self._machine.fire(TransportTrigger.REMOTE_CLOSE)
                self._channels.close()
                self._take_events(dtls)
                self._events.append(TransportClosed(dtls.closed))

    def _poll_channels(self, dtls: Dtls, now_ns: int) -> None:
        packets, dtls.received = dtls.received, []
        if self._channels.state is AssociationState.WAITING:
            self._channels.start(dtls.role == "client", now_ns)
        self._channels.receive(packets, now_ns)
        self._channels.poll(now_ns)
        self._take_events(dtls)

    def _take_events(self, dtls: Dtls | None) -> None:
        """Move what the channels produced: packets through DTLS, then events."""
        packets, self._channels.outgoing = self._channels.outgoing, []
        if dtls is not None and dtls.connected:
            for packet in packets:
                dtls.send(packet)
            self._take_datagrams(dtls)
        events, self._channels.events = self._channels.events, []
        self._events += events

    def _take_datagrams(self, dtls: Dtls) -> None:
        datagrams, dtls.outgoing = dtls.outgoing, []
        self._events += map(DatagramReady, datagrams)

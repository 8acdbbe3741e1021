"""`Plane`: the data plane as the rest of the relay sees it: ids, which worker has what, and one call per command.

Ids are counted over the plane's life and never used again, so that a late event about something removed is ignored.
Each transport lives on one worker; receivers and egresses live with their transports. An egress on another worker than its
receiver gets its packets over the rings between workers, by a mirror of the receiver.
"""

import dataclasses
import itertools
import secrets
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from relay.log import get_logger
from relay.plane.capture import MAX_PACKETS, MAX_SECONDS, Capture
from relay.plane.commands import (
    E_STATE,
    E_UNKNOWN_STREAM,
    E_UNKNOWN_TRANSPORT,
    EgressSpec,
    FrameFormat,
    ListenAddress,
    PlaneError,
    ReceiverSpec,
    SrtpKeys,
    egress_arguments,
    receiver_arguments,
)
from relay.plane.feed import Feed, ReceiverListener, TransportListener
from relay.plane.journal import Journal
from relay.plane.mirrors import Mirrors
from relay.plane.placement import Placement
from relay.plane.stats import PlaneSnapshot, merge
from relaycore.exchange import WorkerExchange
from relaycore.worker import Worker, is_debug, leaks

log = get_logger(__name__)

# Below this a keyframe burst of a few hundred subscribers overflows the kernel's queue before the worker's next turn.
LEAST_BUFFER_BYTES = 4 * 1024 * 1024
# Of each worker: epoll, timer, two eventfds.
WORKER_FDS = 4


def slots_lost() -> int:
    """Return how many packet slots the workers that this process has stopped did not get back."""
    return leaks()["slots"]


@dataclasses.dataclass
class _Transport:
    feed: Feed
    group: Hashable | None
    ufrags: list[str]
    receivers: set[int] = dataclasses.field(default_factory=set)
    egresses: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class _Receiver:
    transport: int
    kind: str
    encodings: int
    mirrors: Mirrors
    egresses: set[int] = dataclasses.field(default_factory=set)


class Plane:
    """The workers of this process. Before `start` and after `stop` every call raises PlaneError (E_STATE).

    Worker k binds each address at its port + k; port 0 is any port for each.
    """

    def __init__(
        self,
        listen: Sequence[ListenAddress],
        *,
        workers: int = 1,
        srtp_backend: str = "auto",
        seed: int | None = None,
        socket_buffer_bytes: int = 8 * 1024 * 1024,
        peer_packets_per_s: int = 10_000,
        peer_bits_per_s: int = 50_000_000,
        overload_lag_ms: int = 50,
    ) -> None:
        # The seed makes SSRCs and first sequence numbers, which peers should not foretell; tests fix it.
        seed = secrets.randbits(64) if seed is None else seed
        self._exchange = WorkerExchange(workers) if workers > 1 else None
        self._listen = tuple(listen)
        self._transports: dict[int, _Transport] = {}
        self._by_ufrag: dict[str, int] = {}
        self._receivers: dict[int, _Receiver] = {}
        self._egresses: dict[int, tuple[int, int]] = {}
        self.journal = Journal(self._receivers, self._egresses)
        self._feeds = tuple(
            Feed(
                Worker(
                    [(address.ip, address.port + index if address.port else 0) for address in listen],
                    backend=srtp_backend,
                    seed=(seed + index) % (1 << 64),
                    index=index,
                    socket_buffer_bytes=socket_buffer_bytes,
                    exchange=self._exchange,
                    peer_packets_per_s=peer_packets_per_s,
                    peer_bits_per_s=peer_bits_per_s,
                    overload_lag_ms=overload_lag_ms,
                ),
                index,
                self.journal,
            )
            for index in range(workers)
        )
        self._placement = Placement(workers)
        self._ids = itertools.count(1)
        self._state = "new"

    async def start(self) -> None:
        """Bind every address and start the workers; OSError names what could not be bound."""
        if self._state != "new":
            raise PlaneError("start", E_STATE)
        self._state = "stopped"
        for number, feed in enumerate(self._feeds):
            try:
                await feed.start()
            except BaseException:
                # The workers before it run already.
                for started in self._feeds[:number]:
                    await started.stop()
                raise
            for bound in feed.worker.sockets:
                obtained = min(bound["receive_buffer_bytes"], bound["send_buffer_bytes"])
                report = log.warning if obtained < LEAST_BUFFER_BYTES else log.info
                report("udp socket bound", worker=feed.index, srtp=feed.worker.backend_name, **bound)
        self._state = "running"

    async def stop(self) -> None:
        """End the workers after what was asked for is done. The debug twin fails when one kept a slot or descriptor."""
        if self._state != "running":
            self._state = "stopped"
            return
        self._state = "stopped"
        before = leaks()
        for feed in self._feeds:
            await feed.stop()
        after = leaks()
        closed = sum(WORKER_FDS + len(feed.worker.sockets) for feed in self._feeds)
        # The rings' own descriptors go with the last who knows them.
        self._exchange = None
        if is_debug():
            kept = after["slots"] - before["slots"], after["fds"] - before["fds"] + closed
            assert kept == (0, 0), f"slots and descriptors kept by stopped workers: {kept}"
            assert after["connections"] <= before["connections"], "a stopped worker kept a TCP connection"
        self._transports.clear()
        self._by_ufrag.clear()
        self._receivers.clear()
        self._egresses.clear()

    @property
    def workers(self) -> int:
        return len(self._feeds)

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """The listening addresses of all workers, once started with the ports really bound."""
        return tuple(address for feed in self._feeds for address in self._addresses_of(feed))

    def candidates(self, transport: int) -> tuple[ListenAddress, ...]:
        """The addresses at which the worker of a transport listens."""
        return self._addresses_of(self._transport(transport).feed)

    def _addresses_of(self, feed: Feed) -> tuple[ListenAddress, ...]:
        sockets = feed.worker.sockets
        if not sockets:
            return self._listen
        return tuple(dataclasses.replace(a, port=s["port"]) for a, s in zip(self._listen, sockets, strict=True))

    @property
    def sockets(self) -> list[dict[str, Any]]:
        """{ip, port, receive_buffer_bytes, send_buffer_bytes} of every socket, as obtained from the kernel."""
        return [s for feed in self._feeds for s in feed.worker.sockets]

    @property
    def srtp_backend(self) -> str:
        """Name of the cipher implementation in use."""
        return self._feeds[0].worker.backend_name

    # --- transports ---

    async def add_transport(
        self,
        ufrag: str,
        password: str,
        listener: TransportListener,
        *,
        group: Hashable | None = None,
        bits_per_s: int = 0,
    ) -> int:
        """Make a transport that answers ICE checks; returns its id once a check may come.

        Transports of one group (a room) share a worker until that is full. `bits_per_s` is what this one may send, in place
        of what all may; 0: that.
        """
        self._need_running("add_transport")
        feed, number = self._feeds[self._placement.place(group)], next(self._ids)
        feed.transports[number] = listener
        self._transports[number] = _Transport(feed, group, [ufrag])
        self._by_ufrag[ufrag] = number
        try:
            await feed.call(feed.worker.add_transport, number, ufrag, password, bits_per_s)
        except BaseException as error:
            self._undo(error, feed, feed.worker.remove_transport, number)
            self._forget_transport(number)
            raise
        return number

    async def restart_ice(self, transport: int, ufrag: str, password: str) -> None:
        known = self._transport(transport)
        # The former one still counts until a check with the new one comes.
        for former in known.ufrags[:-1]:
            self._by_ufrag.pop(former, None)
        known.ufrags = [known.ufrags[-1], ufrag]
        self._by_ufrag[ufrag] = transport
        await known.feed.call(known.feed.worker.set_ice, transport, ufrag, password)

    def transport_of(self, ufrag: str) -> int | None:
        """Return the transport that answers checks under a ufrag."""
        return self._by_ufrag.get(ufrag)

    async def adopt_tcp(self, transport: int, fd: int, remote: tuple[str, int], first: bytes) -> None:
        """Have the worker of a transport serve a TCP connection (RFC 6544), of which `first` was read already.

        The worker makes a descriptor of its own of `fd`.   Errors: PlaneError when it has no place for one more.
        """
        feed = self._transport(transport).feed
        await feed.call(feed.worker.add_tcp, fd, *remote, first)

    async def set_extensions(
        self, transport: int, id_by_uri: Mapping[str, int], sent_id_by_uri: Mapping[str, int] | None = None
    ) -> None:
        """Set the header extensions negotiated on a transport; `sent_id_by_uri` those of what we send there, where they are
        others. Unknown URIs are ignored."""
        feed = self._transport(transport).feed
        sent = None if sent_id_by_uri is None else dict(sent_id_by_uri)
        await feed.call(feed.worker.set_extensions, transport, dict(id_by_uri), sent)

    async def set_srtp(self, transport: int, keys: SrtpKeys) -> None:
        """Give a transport its keys, once for its life."""
        feed = self._transport(transport).feed
        arguments = keys.profile, keys.receive_key, keys.receive_salt, keys.send_key, keys.send_salt
        await feed.call(feed.worker.set_srtp, transport, *arguments)

    def send_dtls(self, transport: int, datagram: bytes) -> None:
        """Send a DTLS datagram to the selected address; lost like any datagram when there is none, or no transport."""
        if self._state == "running" and (owner := self._transports.get(transport)) is not None:
            owner.feed.post(owner.feed.worker.send_dtls, transport, bytes(datagram))

    def set_wanted_rate(self, transport: int, bps: int) -> None:
        """Say what would be sent to a subscriber if the path allowed; nothing more is probed for. 0 = nothing more."""
        if self._state == "running" and (owner := self._transports.get(transport)) is not None:
            owner.feed.post(owner.feed.worker.set_wanted_rate, transport, bps)

    async def remove_transport(self, transport: int) -> None:
        """Remove a transport with its receivers and egresses; no listener of them is called any more."""
        feed = self._transport(transport).feed
        # Asked for before it is forgotten: mirrors that nobody needs any more go behind it.
        removed = feed.call(feed.worker.remove_transport, transport)
        self._forget_transport(transport)
        await removed

    # --- receivers ---

    async def add_receiver(self, transport: int, spec: ReceiverSpec, listener: ReceiverListener) -> int:
        owner = self._transport(transport)
        feed, number = owner.feed, next(self._ids)
        arguments = receiver_arguments(transport, number, spec)
        feed.receivers[number] = listener
        owner.receivers.add(number)
        encodings = max(1, len(spec.rids))
        self._receivers[number] = _Receiver(
            transport, spec.kind, encodings, Mirrors(number, spec.kind, encodings, feed)
        )
        self._placement.add(feed.index, spec.kind, encodings)
        try:
            await feed.call(feed.worker.add_receiver, *arguments)
        except BaseException as error:
            self._undo(error, feed, feed.worker.remove_receiver, number)
            self._forget_receiver(number)
            raise
        return number

    async def remove_receiver(self, receiver: int) -> None:
        """Remove a receiver with its egresses; its listener is not called any more."""
        feed = self._feed_of_receiver(receiver)
        removed = feed.call(feed.worker.remove_receiver, receiver)
        self._forget_receiver(receiver)
        await removed

    async def set_frame_format(self, receiver: int, frame_format: FrameFormat) -> None:
        """Tell how a receiver's frames are encrypted; fixed for its life, and told before its first egress.

        All but "clear" is opaque: forwarded by descriptors and header extensions alone, and stopped when its frames do not
        bear the format's mark (ReceiverListener.on_stopped). Errors: PlaneError, E_STATE when it is too late or another one.
        """
        feed = self._feed_of_receiver(receiver)
        await feed.call(feed.worker.set_frame_format, receiver, frame_format)

    async def announce_keys(self, receiver: int, first_kid: int, last_kid: int) -> None:
        """Add SFrame key ids that a receiver's frames may carry. Until the first call its packets are dropped and counted.

        Of ranges that do not touch the newest 32 count. Errors: PlaneError, E_STATE when its format is not "sframe".
        """
        feed = self._feed_of_receiver(receiver)
        await feed.call(feed.worker.announce_keys, receiver, first_kid, last_kid)

    async def request_keyframe(self, receiver: int, encoding: int) -> None:
        """Ask the publisher for a keyframe of one encoding, within the worker's limits on such requests."""
        feed = self._feed_of_receiver(receiver)
        await feed.call(feed.worker.request_keyframe, receiver, encoding)

    def drop_keyframe_cache(self, receiver: int) -> None:
        """Let nobody begin at what came of a receiver before its next keyframe; egresses added from now on included.

        Done before anything that is asked for later; not acknowledged. A receiver that is gone has no cache.
        """
        owner = self._receivers.get(receiver)
        if self._state != "running" or owner is None:
            return
        for feed in (self._feed_of_receiver(receiver), *owner.mirrors.feeds):
            feed.post_unless_over(feed.worker.drop_keyframe_cache, receiver)

    # --- egresses ---

    async def add_egress(self, spec: EgressSpec) -> int:
        owner = self._transport(spec.transport)
        feed, home = owner.feed, self._feed_of_receiver(spec.receiver)
        number, receiver = next(self._ids), self._receivers[spec.receiver]
        arguments = egress_arguments(number, spec, receiver.kind)
        owner.egresses.add(number)
        receiver.egresses.add(number)
        self._egresses[number] = (spec.transport, spec.receiver)
        self._placement.add(feed.index, receiver.kind)
        is_asked = False
        try:
            if home is not feed:
                await receiver.mirrors.use(feed).wait()
                if number not in self._egresses:
                    raise PlaneError("add_egress", E_UNKNOWN_STREAM)
            is_asked = True
            await feed.call(feed.worker.add_egress, *arguments)
        except BaseException as error:
            if is_asked:
                self._undo(error, feed, feed.worker.remove_egress, number)
            self._forget_egress(number)
            raise
        return number

    async def select_encoding(self, egress: int, encoding: int | None) -> None:
        """Ask for all layers of an encoding, from its next keyframe on; None pauses."""
        await self.select_layers(egress, encoding)

    async def select_layers(self, egress: int, encoding: int | None, *, spatial: int = 7, temporal: int = 7) -> None:
        """Ask for an encoding up to these layer ids, 7 = all there are; None pauses.

        Another encoding begins at its next keyframe. Fewer layers: from the next picture on (where they need frames that were not
        sent, as in K-SVC, at a keyframe). More temporal layers: at their next switching point; more spatial ones at one, or at
        the keyframe that is asked for.
        """
        feed = self._feed_of_egress(egress)
        await feed.call(feed.worker.select_layers, egress, encoding, spatial, temporal)

    async def remove_egress(self, egress: int) -> None:
        feed = self._feed_of_egress(egress)
        removed = feed.call(feed.worker.remove_egress, egress)
        self._forget_egress(egress)
        await removed

    # --- the whole ---

    async def snapshot(self) -> PlaneSnapshot:
        """Return the figures of all workers as they are now."""
        self._need_running("snapshot")
        return merge([await feed.snapshot() for feed in self._feeds], self._placement.loads())

    async def capture(self, transport: int, seconds: float, packets: int) -> Capture:
        """Keep headers of what a transport receives and sends, never a payload (capture.pxd). `stop` it in the end.

        Errors: ValueError above MAX_SECONDS or MAX_PACKETS; PlaneError (E_STATE while another one of it is under way).
        """
        if not 0 < seconds <= MAX_SECONDS or not 0 < packets <= MAX_PACKETS:
            raise ValueError(f"a capture lasts up to {MAX_SECONDS} s and {MAX_PACKETS} packets")
        feed = self._transport(transport).feed
        if not feed.captures.begin(transport):
            raise PlaneError(f"capture of transport {transport}", E_STATE)
        capture = Capture(feed, transport)
        try:
            await feed.call(feed.worker.capture, transport, seconds, packets)
        except BaseException as error:
            feed.captures.end(transport)
            self._undo(error, feed, feed.worker.capture, transport, 0, 0)
            raise
        return capture

    # --- who has what ---

    def _need_running(self, what: str) -> None:
        if self._state != "running":
            raise PlaneError(what, E_STATE)

    def _transport(self, number: int) -> _Transport:
        self._need_running("transport")
        if number not in self._transports:
            raise PlaneError(f"transport {number}", E_UNKNOWN_TRANSPORT)
        return self._transports[number]

    def _feed_of_receiver(self, number: int) -> Feed:
        self._need_running("receiver")
        if number not in self._receivers:
            raise PlaneError(f"receiver {number}", E_UNKNOWN_STREAM)
        return self._transports[self._receivers[number].transport].feed

    def _feed_of_egress(self, number: int) -> Feed:
        self._need_running("egress")
        if number not in self._egresses:
            raise PlaneError(f"egress {number}", E_UNKNOWN_STREAM)
        return self._transports[self._egresses[number][0]].feed

    def _undo(self, error: BaseException, feed: Feed, remove: Any, *arguments: Any) -> None:
        """Remove what a cancelled caller will never hear of; what was refused (any Exception) does not exist."""
        if not isinstance(error, Exception) and self._state == "running":
            feed.post(remove, *arguments)

    def _forget_transport(self, number: int) -> None:
        if (transport := self._transports.get(number)) is None:
            return
        for receiver in list(transport.receivers):
            self._forget_receiver(receiver)
        for egress in list(transport.egresses):
            self._forget_egress(egress)
        transport.feed.transports.pop(number, None)
        for ufrag in transport.ufrags:
            self._by_ufrag.pop(ufrag, None)
        self._placement.leave(transport.group, transport.feed.index)
        self.journal.unfollow(number)
        del self._transports[number]

    def _forget_receiver(self, number: int) -> None:
        if (receiver := self._receivers.get(number)) is None:
            return
        receiver.mirrors.drop()
        for egress in list(receiver.egresses):
            self._forget_egress(egress)
        del self._receivers[number]
        transport = self._transports[receiver.transport]
        transport.receivers.discard(number)
        transport.feed.receivers.pop(number, None)
        self._placement.remove(transport.feed.index, receiver.kind, receiver.encodings)

    def _forget_egress(self, number: int) -> None:
        if (owners := self._egresses.pop(number, None)) is None:
            return
        transport, receiver = self._transports[owners[0]], self._receivers[owners[1]]
        transport.egresses.discard(number)
        receiver.egresses.discard(number)
        self._placement.remove(transport.feed.index, receiver.kind)
        if self._transports[receiver.transport].feed is not transport.feed:
            receiver.mirrors.release(transport.feed)

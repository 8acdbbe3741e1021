"""`SansIoEngine`: one engine without sockets, thread or clock, for simulations, tests and fuzzing on virtual time.

The commands and events are the worker's own (`CommandPort`); datagrams and time are arguments.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, INT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from relaycore.engine cimport (
    engine_command, engine_exchange, engine_free, engine_join, engine_lag, engine_new, engine_overload, engine_poll,
    engine_receive, engine_set_limits, engine_set_slice, engine_set_snapshot,
)
from relaycore.exchange cimport WorkerExchange, exchange_flush, exchange_waiting
from relaycore.mailbox cimport Command, mailbox_free, mailbox_new, mailbox_take_command
from relaycore.outbox cimport OUTBOX_MAX, Outbox, outbox_clear
from relaycore.port cimport CommandPort
from relaycore.slab cimport SLOT_LARGE_BYTES, Slot, slab_free, slab_new, slab_take, slab_used
from relaycore.srtp cimport SRTP_BACKEND_AUTO
from relaycore.stun cimport SockAddr
from relaycore.sockaddr cimport format_address, parse_address


@cython.final
cdef class SansIoEngine(CommandPort):
    """An engine on virtual time. Commands take effect at the next `poll` or `receive`.

    exchange: rings to other engines of the same thread, among which this one is worker `index`.
    """

    def __init__(self, *, uint64_t seed, uint32_t slots=4096, int backend=SRTP_BACKEND_AUTO, WorkerExchange exchange=None,
                 uint32_t peer_packets_per_s=0, uint64_t peer_bits_per_s=0, int64_t overload_lag_ns=0,
                 uint32_t index=0):
        if exchange is not None and index >= exchange.workers:
            raise ValueError(f"worker {index} of {exchange.workers}")
        self._slab = slab_new(slots, slots)
        self._outbox = <Outbox*>calloc(1, sizeof(Outbox))
        self._own_mailbox = mailbox_new()
        if self._slab == NULL or self._outbox == NULL or self._own_mailbox == NULL:
            raise MemoryError("engine")
        self._engine = engine_new(self._slab, self._outbox, self._own_mailbox, backend, seed)
        if self._engine == NULL:
            raise MemoryError("engine")
        self._mailbox = self._own_mailbox
        engine_set_snapshot(self._engine, &self._snapshot)
        engine_set_limits(self._engine, peer_packets_per_s, peer_bits_per_s, overload_lag_ns)
        if exchange is not None:
            self._exchange = exchange
            self._index = index
            engine_join(self._engine, exchange.exchange, index)

    def __dealloc__(self):
        self._mailbox = NULL
        if self._engine != NULL:
            engine_free(self._engine)
        if self._outbox != NULL:
            if self._slab != NULL:
                outbox_clear(self._outbox, self._slab, 0)
            free(self._outbox)
        if self._own_mailbox != NULL:
            mailbox_free(self._own_mailbox)
        if self._slab != NULL:
            slab_free(self._slab)

    @property
    def slots_used(self):
        """Packet slots that something still holds."""
        return slab_used(self._slab)

    @property
    def has_mail(self):
        """Whether another engine has sent something that the next `poll` takes."""
        return self._exchange is not None and bool(exchange_waiting(self._exchange.exchange, self._index))

    def feel(self, int64_t lag_ns, int64_t now_ns):
        """Let the engine know how long what comes next has waited."""
        engine_lag(self._engine, lag_ns, now_ns)

    @property
    def overload_level(self):
        """0 nothing is left out, 1 upper temporal layers are, 2 all video is."""
        return engine_overload(self._engine)

    def poll_slice(self, int64_t now_ns, int packets):
        """Like `poll`, but one slice of about that many packets; `next_ns` is in the past when more waits."""
        cdef list out = []
        engine_set_slice(self._engine, packets)
        self._run_commands(now_ns)
        engine_exchange(self._engine, now_ns)
        due = engine_poll(self._engine, now_ns)
        self._take_outbox(out)
        self.next_ns = None if due == INT64_MAX else due
        return out

    def poll_blocked(self, int64_t now_ns):
        """Like one turn of `poll`, but the sockets take nothing: what is to go out waits for the next `poll`."""
        engine_set_slice(self._engine, OUTBOX_MAX)
        self._run_commands(now_ns)
        engine_exchange(self._engine, now_ns)
        engine_poll(self._engine, now_ns)

    @property
    def takes_gso(self):
        """Whether runs are levelled for sockets that take them whole; off, so that tests see packets as they came."""
        return bool(self._outbox.takes_gso)

    @takes_gso.setter
    def takes_gso(self, bint value):
        self._outbox.takes_gso = 1 if value else 0

    cdef int _run_commands(self, int64_t now_ns) except -1:
        cdef Command c
        while mailbox_take_command(self._mailbox, &c):
            engine_command(self._engine, &c, now_ns)
        return 0

    cdef int _take_outbox(self, list out) except -1:
        cdef Slot* slot
        cdef int i
        for i in range(self._outbox.count):
            slot = self._outbox.items[i].slot
            out.append((PyBytes_FromStringAndSize(<const char*>slot.data, slot.length),
                        format_address(&self._outbox.items[i].remote)))
        outbox_clear(self._outbox, self._slab, 0)
        return 0

    def receive(self, bytes datagram, address, int64_t now_ns, uint16_t socket_index=0):
        """Give the engine one datagram from (ip, port)."""
        cdef SockAddr remote
        cdef Slot* slot
        if len(datagram) > SLOT_LARGE_BYTES:
            raise ValueError(f"datagram of {len(datagram)} bytes")
        ip, port = address
        parse_address(ip, port, &remote)
        self._run_commands(now_ns)
        slot = slab_take(self._slab, SLOT_LARGE_BYTES)
        if slot == NULL:
            raise MemoryError("all slots are in use")
        memcpy(slot.data, <const char*>datagram, <size_t>len(datagram))
        slot.length = <uint16_t>len(datagram)
        engine_receive(self._engine, slot, &remote, socket_index, now_ns)

    def poll(self, int64_t now_ns):
        """Run what is due; return [(datagram, (ip, port))] in sending order. `next_ns` tells when to call again, or None."""
        cdef list out = []
        cdef int64_t due
        cdef bint more
        engine_set_slice(self._engine, OUTBOX_MAX)
        self._run_commands(now_ns)
        while True:
            more = engine_exchange(self._engine, now_ns)
            due = engine_poll(self._engine, now_ns)
            if self._outbox.count == 0 and due > now_ns and not more:
                break
            self._take_outbox(out)
        if self._exchange is not None:
            # What the last turn had to say.
            exchange_flush(self._exchange.exchange, self._index)
        self.next_ns = None if due == INT64_MAX else due
        return out

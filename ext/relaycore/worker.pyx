"""`Worker`: one data plane thread behind its command port: sockets bound and thread running from `start` to `stop`."""
import os

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from relaycore.engine cimport engine_set_limits, engine_set_snapshot
from relaycore.exchange cimport WorkerExchange, exchange_open_fds
from relaycore.errs cimport E_OK
from relaycore.mailbox cimport CMD_STOP, Command, mailbox_open_fds, mailbox_submit
from relaycore.port cimport CommandPort
from relaycore.srtp cimport SRTP_BACKEND_AUTO, SRTP_BACKEND_IPSEC_MB, SRTP_BACKEND_OPENSSL, srtp_backend_name
from relaycore.stun cimport SockAddr
from relaycore.thread cimport (
    WorkerThread, thread_engine, thread_free, thread_join, thread_mailbox, thread_new, thread_open, thread_socket, thread_start,
    thread_join_exchange, threads_live, threads_open_fds, threads_slots_leaked,
)
from relaycore.sockaddr cimport parse_address
from relaycore.tcp cimport tcp_open_fds
from relaycore.udp cimport UDP_MAX_SOCKETS, UdpSocket, udp_open_fds

cdef extern from *:
    """
    #ifndef RELAY_DEBUG
    #define RELAY_DEBUG 0
    #endif
    """
    enum:
        RELAY_DEBUG

# Re-exported: who holds a worker needs the words of its port.
from relaycore.port import CAPTURE_KEPT_BYTES, CAPTURE_LIMITS, CODEC_LIMIT, CODECS, RID_LIMIT, SSRC_LIMIT, EventKind, MailboxFull, error_name  # noqa: F401

BACKENDS = {"auto": SRTP_BACKEND_AUTO, "ipsec-mb": SRTP_BACKEND_IPSEC_MB, "openssl": SRTP_BACKEND_OPENSSL}


def is_debug():
    """True in the debug twin (RELAY_DEBUG=1 at build time)."""
    return bool(RELAY_DEBUG)


def leaks():
    """Return what workers of this process have not given back: running threads, slots lost with their slab, descriptors."""
    return {
        "workers": threads_live(),
        "slots": threads_slots_leaked(),
        "fds": threads_open_fds() + mailbox_open_fds() + udp_open_fds() + exchange_open_fds(),
        "connections": tcp_open_fds(),
    }


@cython.final
cdef class Worker(CommandPort):
    """One worker: sockets bound and thread running from `start` to `stop`.

    peer_packets_per_s, peer_bits_per_s: what one transport may send, 0 = no limit. overload_lag_ms: how far behind the worker may
    be before it leaves video out, 0 = never. addresses: (ip, port) pairs, port 0 = any. seed: of SSRCs and first numbers, not of keys. exchange: rings to the other
    workers of the process, among which this one is `index`. A worker runs once.
    """
    def __init__(self, addresses, *, backend="auto", seed, index=0, small_slots=16384, large_slots=32768,
                 socket_buffer_bytes=8 * 1024 * 1024, WorkerExchange exchange=None, peer_packets_per_s=10_000,
                 peer_bits_per_s=50_000_000, overload_lag_ms=50):
        cdef SockAddr address
        self._addresses = [(str(ip), int(port)) for ip, port in addresses]
        if not 1 <= len(self._addresses) <= UDP_MAX_SOCKETS:
            raise ValueError(f"{len(self._addresses)} addresses, not 1 to {UDP_MAX_SOCKETS}")
        for ip, port in self._addresses:
            parse_address(ip, port, &address)
        if backend not in BACKENDS:
            raise ValueError(f"SRTP backend {backend!r} is none of {', '.join(BACKENDS)}")
        if not 0 <= seed < 1 << 64:
            raise ValueError("seed is no 64-bit number")
        # A batch of receive slots is always armed; below this nothing could be forwarded.
        if not 256 <= large_slots <= 1 << 22 or not 0 <= small_slots <= 1 << 22:
            raise ValueError("slots are out of range")
        if not 4096 <= socket_buffer_bytes <= 1 << 30:
            raise ValueError("socket_buffer_bytes is out of range")
        if exchange is not None and not 0 <= index < exchange.workers:
            raise ValueError(f"worker {index} of {exchange.workers}")
        if not 0 <= peer_packets_per_s < 1 << 32 or not 0 <= peer_bits_per_s < 1 << 62 or not 0 <= overload_lag_ms <= 60_000:
            raise ValueError("limits are out of range")
        self._limits = peer_packets_per_s, peer_bits_per_s, overload_lag_ms
        self._exchange = exchange
        self._backend = BACKENDS[backend]
        self._seed = seed
        self._index = index
        self._small_slots = small_slots
        self._large_slots = large_slots
        self._buffer_bytes = socket_buffer_bytes
        self._sockets = []

    def __dealloc__(self):
        # A thread that does not end keeps its memory: a leak is better than a use after free.
        if self._thread != NULL and self._end(5000) == E_OK:
            self._release()

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self):
        """Bind the sockets and start the thread. OSError names the address that could not be bound."""
        cdef SockAddr address
        cdef const UdpSocket* s
        cdef int index
        if self._thread != NULL or self._is_over:
            raise RuntimeError("a worker starts once")
        self._thread = thread_new(self._index, self._small_slots, self._large_slots, self._backend, self._seed)
        if self._thread == NULL:
            raise MemoryError("worker")
        self._mailbox = thread_mailbox(self._thread)
        try:
            for ip, port in self._addresses:
                parse_address(ip, port, &address)
                index = thread_open(self._thread, &address, self._buffer_bytes)
                if index < 0:
                    raise OSError(errno, f"{ip} port {port}: {os.strerror(errno)}")
                s = thread_socket(self._thread, index)
                self._sockets.append({"ip": ip, "port": s.port, "receive_buffer_bytes": s.receive_buffer_bytes,
                                      "send_buffer_bytes": s.send_buffer_bytes})
            if self._exchange is not None:
                if thread_join_exchange(self._thread, self._exchange.exchange) < 0:
                    raise OSError(errno, f"worker {self._index}: {os.strerror(errno)}")
                # The thread's own reference: it may outlive this object when it does not end in time.
                self._held = <PyObject*>self._exchange
                Py_INCREF(self._exchange)
            engine_set_snapshot(thread_engine(self._thread), &self._snapshot)
            packets_per_s, bits_per_s, lag_ms = self._limits
            engine_set_limits(thread_engine(self._thread), packets_per_s, bits_per_s, lag_ms * 1_000_000)
            if thread_start(self._thread) < 0:
                raise OSError(errno, f"worker thread: {os.strerror(errno)}")
        except BaseException:
            self._release()
            raise

    def request_stop(self):
        """Ask the thread to end; it answers with an ACK, then STOPPED as its last event. Commands behind it never run."""
        cdef Command c
        self._begin(&c, CMD_STOP)
        return self._submit_unbounded(&c)

    def stop(self, double timeout_s=5.0):
        """End the thread if it runs, close the sockets, free everything; RuntimeError when it does not end in time."""
        cdef int code
        if self._thread == NULL:
            return
        code = self._end(<int64_t>(timeout_s * 1000))
        if code != E_OK:
            raise RuntimeError(f"worker {self._index} did not stop within {timeout_s} s")
        self._release()

    cdef int _end(self, int64_t timeout_ms) noexcept:
        cdef Command c
        cdef int code
        memset(&c, 0, sizeof(Command))
        c.op = CMD_STOP
        # When a stop is queued already, one more is never read; when the ring is full of them, one was.
        mailbox_submit(self._mailbox, &c)
        with nogil:
            code = thread_join(self._thread, timeout_ms)
        return code

    cdef void _release(self) noexcept:
        thread_free(self._thread)
        self._thread = NULL
        if self._held != NULL:
            Py_DECREF(<object>self._held)
            self._held = NULL
        self._exchange = None
        self._mailbox = NULL
        self._is_over = True

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def is_running(self):
        return self._thread != NULL

    @property
    def sockets(self):
        """[{ip, port, receive_buffer_bytes, send_buffer_bytes}] as really bound and obtained, in the order of `addresses`."""
        return [dict(s) for s in self._sockets]

    @property
    def backend_name(self):
        return srtp_backend_name(self._backend).decode()

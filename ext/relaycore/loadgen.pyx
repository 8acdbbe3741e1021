"""`LoadGenerator`: thousands of WebRTC endpoints in one process, their media made and checked without the GIL.

An endpoint is what a browser's transport is to a relay: a UDP socket, an ICE agent, SRTP under given keys, senders and
receivers. Python does what happens once per call (signalling, the DTLS handshake, data channels inside DTLS) and gets those
datagrams as events; media never passes through Python. Every generated frame carries a stamp and a keyed digest (lgstamp), so
a receiver judges content, order, loss, duplicates and delay frame by frame. What the generator cannot do in time it says
itself: see `stats()["verdict"]`. Never loaded into a relay's process.
"""
import os
import resource
import time
from enum import IntEnum

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport uint8_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport free
from relaycore.errs cimport E_OK
from relaycore.lgendpoint cimport (
    endpoint_add_sender, endpoint_add_stream, endpoint_free, endpoint_new, endpoint_poll, endpoint_remove_sender,
    endpoint_remove_stream,
)
from relaycore.lgice cimport agent_set_local, agent_set_remote
from relaycore.lgmodel cimport (
    LOAD_DATAGRAM, LOAD_FIRST_FRAME, LOAD_ICE_CONNECTED, LOAD_ICE_DEAD, LOAD_STREAM_BOUND, Endpoint, LoadEvent, LoadThread,
    Sender, Stream,
)
from relaycore.lgsocket cimport socket_connect, socket_send
from relaycore.lgspec cimport drop_sender, make_sender, make_stream, put_extensions, put_short
from relaycore.lgstats cimport collect, reset_counts
from relaycore.lgthread cimport (
    Runner, RunnerOptions, load_now_ns, runner_cpu_ns, runner_enter, runner_free, runner_is_running, runner_leave, runner_new,
    runner_start, runner_stop, runner_tid, runner_watch,
)
from relaycore.lgtrace cimport trace_seed
from relaycore.srtp cimport (
    SRTP_BACKEND_AUTO, SRTP_BACKEND_IPSEC_MB, SRTP_BACKEND_OPENSSL, SrtpContext, srtp_free, srtp_key_bytes, srtp_new, srtp_salt_bytes,
)
from relaycore.stun cimport SockAddr
from relaycore.sockaddr cimport format_address, parse_address

import numpy as np

from relaycore import lgstats
from relaycore.lgstats import BUCKETS, HISTOGRAM_EDGES_NS, percentile  # noqa: F401

BACKENDS = {"auto": SRTP_BACKEND_AUTO, "ipsec-mb": SRTP_BACKEND_IPSEC_MB, "openssl": SRTP_BACKEND_OPENSSL}
THREAD_DTYPE = np.dtype([(name, "i8") for name in ("thread", "running", "endpoints", "cpu_ns", "wait_ns", "wall_ns")])


class EventKind(IntEnum):
    """What take_events tells; each event is (kind, endpoint, now_ns, receiver or 0, payload or None)."""

    ICE_CONNECTED = LOAD_ICE_CONNECTED
    ICE_DEAD = LOAD_ICE_DEAD
    DATAGRAM = LOAD_DATAGRAM
    STREAM_BOUND = LOAD_STREAM_BOUND
    FIRST_FRAME = LOAD_FIRST_FRAME


_KINDS = {int(kind): kind for kind in EventKind}


def _scheduler_wait_ns(int tid):
    """How long a thread of this process was runnable without a processor; 0 where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{tid}/schedstat") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


@cython.final
cdef class LoadGenerator:
    """Endpoints over one or more threads. See the module's docstring; all times are CLOCK_MONOTONIC nanoseconds.

    drain: "lazy" reads every drain_ms, for figures of cost; "eager" at once, for figures of delay. kernel_timestamps: None = on
    when eager; without them no delay is counted. verify_every: 1 = every frame is decrypted and judged, n = every n-th and the
    rest counted by headers, 0 = none. key: of the digests, 16 bytes; None = by seed. realtime: threads run before everything
    else (SCHED_RR), for schedules that hold on a busy machine. hold_slots: packets behind holes per thread.
    """

    def __cinit__(self):
        self._event_fd = -1

    def __init__(self, seed, threads=1, drain="lazy", *, drain_ms=2.0, kernel_timestamps=None, verify_every=1, key=None, sending=True,
                 realtime=False, srtp_backend="auto", hold_slots=8192, receive_buffer_bytes=4 * 1024 * 1024, send_buffer_bytes=1024 * 1024):
        cdef RunnerOptions o
        cdef int i
        if self._event_fd >= 0:
            raise RuntimeError("a load generator is made once")
        if drain not in ("lazy", "eager"):
            raise ValueError(f"drain {drain!r} is neither lazy nor eager")
        if not 1 <= threads <= 64 or not 0.1 <= drain_ms <= 1000 or not 0 <= verify_every < 1 << 31:
            raise ValueError("threads are 1 to 64, drain_ms 0.1 to 1000, verify_every 0 or more")
        if srtp_backend not in BACKENDS:
            raise ValueError(f"SRTP backend {srtp_backend!r} is none of {', '.join(BACKENDS)}")
        if not 64 <= hold_slots <= 1 << 20:
            raise ValueError("hold_slots is out of range")
        self._seed = seed & 0xFFFFFFFFFFFFFFFF
        self._key = _default_key(self._seed) if key is None else bytes(key)
        if len(self._key) != 16:
            raise ValueError("the digest's key has 16 bytes")
        self._is_realtime = realtime
        self._is_lazy = drain == "lazy"
        self._drain_ms = drain_ms
        self._backend = BACKENDS[srtp_backend]
        self._endpoints, self._senders, self._receivers, self._marks = {}, {}, {}, {}
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        o.is_eager = not self._is_lazy
        o.has_kernel_time = o.is_eager if kernel_timestamps is None else bool(kernel_timestamps)
        o.verify_every = verify_every
        o.srtp_backend = self._backend
        o.drain_ns = <int64_t>(drain_ms * 1e6)
        o.receive_buffer_bytes = receive_buffer_bytes
        o.send_buffer_bytes = send_buffer_bytes
        o.hold_slots = hold_slots
        o.event_fd = self._event_fd
        o.key = <const uint8_t*>self._key
        o.sending = 1 if sending else 0
        for i in range(threads):
            self._threads[i] = runner_new(<uint32_t>i, &o)
            if self._threads[i] == NULL:
                raise MemoryError("load thread")
            self._thread_count += 1
        # An endpoint is a descriptor.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def __dealloc__(self):
        cdef int i
        for i in range(self._thread_count):
            # A thread that does not end keeps its memory: a leak is better than a use after free.
            if runner_stop(self._threads[i], 5000) == E_OK:
                runner_free(self._threads[i])
        if self._event_fd >= 0:
            os.close(self._event_fd)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *unused):
        self.stop()

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self):
        """Start the threads; nothing is sent or read before. PermissionError where `realtime` is not allowed."""
        cdef int i
        if self._is_started:
            raise RuntimeError("a load generator starts once")
        self._is_started = True
        for i in range(self._thread_count):
            if runner_start(self._threads[i]) < 0:
                raise OSError(errno, f"load thread: {os.strerror(errno)}")
            while self._is_realtime and runner_tid(self._threads[i]) == 0:
                time.sleep(0.001)
            if self._is_realtime:
                os.sched_setscheduler(runner_tid(self._threads[i]), os.SCHED_RR, os.sched_param(1))
        self.reset_stats()

    def stop(self, double timeout_s=5.0):
        """End the threads. Endpoints stay readable by `stats`; RuntimeError when a thread does not end in time."""
        cdef int i, code
        cdef int64_t timeout_ms = <int64_t>(timeout_s * 1000)
        for i in range(self._thread_count):
            with nogil:
                code = runner_stop(self._threads[i], timeout_ms)
            if code < 0:
                raise RuntimeError(f"load thread {i} did not stop within {timeout_s} s")

    # --- endpoints --------------------------------------------------------------------------------------------------

    cdef LoadThread* _enter(self, int thread) noexcept:
        cdef LoadThread* t
        cdef Runner* r = self._threads[thread]
        with nogil:
            t = runner_enter(r)
        return t

    cdef void _leave(self, int thread) noexcept:
        runner_leave(self._threads[thread])

    cdef uint32_t _next_id(self) noexcept:
        self._last_id += 1
        return self._last_id

    cdef tuple _place(self, endpoint):
        found = self._endpoints.get(endpoint)
        if found is None:
            raise KeyError(f"no endpoint {endpoint!r}")
        return found

    def add_endpoint(self, local_ip, remote, local_ufrag, local_password, remote_ufrag="", remote_password="", *, controlling=True,
                     thread=None, cname=None):
        """Open an endpoint's socket at local_ip, any port, and begin to check `remote` (ip, port); without a remote, `set_ice` does.

        thread: index, None = in turn. OSError when there is no socket; ValueError for what no ICE agent may be called.
        """
        cdef SockAddr local
        cdef Endpoint* e
        cdef LoadThread* t
        cdef uint32_t number = self._next_id()
        cdef int place = self._opened % self._thread_count if thread is None else thread
        if not 0 <= place < self._thread_count:
            raise ValueError(f"thread {place} is not below {self._thread_count}")
        _check_ice(local_ufrag, local_password)
        parse_address(local_ip, 0, &local)
        t = self._enter(place)
        try:
            e = endpoint_new(t, number, &local)
            if e == NULL:
                raise OSError(errno, f"endpoint at {local_ip}: {os.strerror(errno)}")
            try:
                if runner_watch(self._threads[place], e) < 0:
                    raise OSError(errno, f"endpoint at {local_ip}: {os.strerror(errno)}")
                e.ice.is_controlling = 1 if controlling else 0
                put_short("cname", cname if cname is not None else f"load-{number}", e.cname, &e.cname_bytes, 64)
                _set_local(e, local_ufrag, local_password)
                if remote is not None and remote_ufrag:
                    _set_remote(t, e, remote, remote_ufrag, remote_password)
            except BaseException:
                endpoint_free(t, e)
                raise
            self._endpoints[int(number)] = (place, int(e.index))
        finally:
            self._leave(place)
        self._opened += 1
        return int(number)

    def local_address(self, endpoint):
        """(ip, port) that the endpoint's socket is bound to."""
        place, index = self._place(endpoint)
        cdef LoadThread* t = self._enter(place)
        try:
            return format_address(&t.endpoints[<int>index].local)
        finally:
            self._leave(place)

    def set_ice(self, endpoint, remote, remote_ufrag, remote_password, *, local_ufrag=None, local_password=None):
        """Give the remote candidate and credentials, later or anew (ICE restart: then local_* too); checks start over."""
        place, index = self._place(endpoint)
        cdef LoadThread* t = self._enter(place)
        try:
            if local_ufrag is not None:
                _check_ice(local_ufrag, local_password)
                _set_local(t.endpoints[<int>index], local_ufrag, local_password)
            _set_remote(t, t.endpoints[<int>index], remote, remote_ufrag, remote_password)
        finally:
            self._leave(place)

    def set_srtp(self, endpoint, int profile, send_key, send_salt, receive_key, receive_salt):
        """Give the SRTP keys (profiles 0x0001, 0x0007, 0x0008), once DTLS has made them. Senders start when ICE is connected too."""
        cdef SrtpContext* outgoing
        cdef SrtpContext* incoming
        cdef LoadThread* t
        cdef Endpoint* e
        place, index = self._place(endpoint)
        wanted = (srtp_key_bytes(profile), srtp_salt_bytes(profile))
        given = [bytes(part) for part in (send_key, send_salt, receive_key, receive_salt)]
        if wanted[0] < 0 or tuple(map(len, given)) != 2 * wanted:
            raise ValueError(f"SRTP profile {profile:#06x} is unknown, or a key or salt has not its length")
        outgoing = srtp_new(profile, <const uint8_t*><bytes>given[0], <const uint8_t*><bytes>given[1], self._backend)
        incoming = srtp_new(profile, <const uint8_t*><bytes>given[2], <const uint8_t*><bytes>given[3], self._backend)
        if outgoing == NULL or incoming == NULL:
            srtp_free(outgoing)
            srtp_free(incoming)
            raise MemoryError("SRTP context")
        t = self._enter(place)
        e = t.endpoints[<int>index]
        srtp_free(e.send_context)
        srtp_free(e.receive_context)
        e.send_context = outgoing
        e.receive_context = incoming
        endpoint_poll(t, e, load_now_ns())
        self._leave(place)

    def set_extensions(self, endpoint, id_by_uri):
        """Number the header extensions of everything the endpoint sends and receives. Unknown URIs are left out."""
        place, index = self._place(endpoint)
        cdef LoadThread* t = self._enter(place)
        try:
            put_extensions(id_by_uri, &t.endpoints[<int>index].extensions)
        finally:
            self._leave(place)

    def send_datagram(self, endpoint, bytes datagram not None):
        """Send a datagram (DTLS) to the remote address; False when the kernel refused it."""
        place, index = self._place(endpoint)
        cdef LoadThread* t = self._enter(place)
        cdef Endpoint* e = t.endpoints[<int>index]
        try:
            if not e.has_remote:
                raise RuntimeError("the endpoint has no remote address")
            return socket_send(e, <const uint8_t*>datagram, len(datagram)) == E_OK
        finally:
            self._leave(place)

    def remove_endpoint(self, endpoint):
        """Close the socket; senders, receivers and their counts go."""
        place, index = self._place(endpoint)
        cdef LoadThread* t = self._enter(place)
        endpoint_free(t, t.endpoints[<int>index])
        self._leave(place)
        del self._endpoints[endpoint]
        self._senders = {k: v for k, v in self._senders.items() if v != endpoint}
        self._receivers = {k: v for k, v in self._receivers.items() if v != endpoint}

    # --- senders and receivers --------------------------------------------------------------------------------------

    def add_sender(self, endpoint, str kind not None, ssrc, payload_type, **spec):
        """Add media to send: kind "audio", "video" or "burst"; the rest by lgspec.SPEC. ssrc None: `encodings` have them."""
        cdef uint32_t number
        cdef Sender* s
        cdef LoadThread* t
        place, index = self._place(endpoint)
        number = self._next_id()
        s = make_sender(number, self._seed, kind, {"ssrc": ssrc, "payload_type": payload_type, **spec})
        t = self._enter(place)
        try:
            if endpoint_add_sender(t, t.endpoints[<int>index], s) < 0:
                drop_sender(s)
                raise MemoryError("sender")
            endpoint_poll(t, t.endpoints[<int>index], load_now_ns())
        finally:
            self._leave(place)
        self._senders[int(number)] = endpoint
        return int(number)

    def add_receiver(self, endpoint, str kind not None, codecs, **spec):
        """Add a stream to receive and judge: kind "audio" or "video"; the rest by lgspec.RECEIVER."""
        cdef uint32_t number
        cdef Stream* s
        cdef LoadThread* t
        place, index = self._place(endpoint)
        number = self._next_id()
        s = make_stream(number, kind, codecs, spec)
        t = self._enter(place)
        try:
            if endpoint_add_stream(t, t.endpoints[<int>index], s) < 0:
                free(s)
                raise MemoryError("receiver")
        finally:
            self._leave(place)
        self._receivers[int(number)] = endpoint
        return int(number)

    def remove_sender(self, sender):
        endpoint = self._senders.pop(sender)
        place, index = self._place(endpoint)
        cdef LoadThread* t = self._enter(place)
        endpoint_remove_sender(t, t.endpoints[<int>index], sender)
        self._leave(place)

    def remove_receiver(self, receiver):
        endpoint = self._receivers.pop(receiver)
        place, index = self._place(endpoint)
        cdef LoadThread* t = self._enter(place)
        endpoint_remove_stream(t, t.endpoints[<int>index], receiver)
        self._leave(place)

    cdef object _change_sender(self, object sender, object encoding, object started, object active, bint keyframe):
        place, index = self._place(self._senders[sender])
        cdef LoadThread* t = self._enter(place)
        cdef Endpoint* e = t.endpoints[<int>index]
        cdef Sender* s
        cdef int i, k
        try:
            for i in range(e.sender_count):
                s = e.senders[i]
                if s.id != sender:
                    continue
                if encoding is not None and not 0 <= encoding < s.encoding_count:
                    raise ValueError(f"encoding {encoding} of {s.encoding_count}")
                if started is not None:
                    s.is_started = 1 if started else 0
                for k in range(s.encoding_count):
                    if encoding is None or k == encoding:
                        if keyframe:
                            s.encodings[k].wants_keyframe = 1
                        if active is not None:
                            s.encodings[k].is_active = 1 if active else 0
            endpoint_poll(t, e, load_now_ns())
        finally:
            self._leave(place)

    def set_sender(self, sender, bint started):
        """Start or pause a sender."""
        self._change_sender(sender, None, started, None, False)

    def set_encoding(self, sender, int encoding, bint active):
        """Send an encoding or leave it out (nobody wants it); it comes back with a keyframe."""
        self._change_sender(sender, encoding, None, active, False)

    def request_keyframe(self, sender):
        """The next frame of every encoding is a keyframe."""
        self._change_sender(sender, None, None, None, True)

    def request_keyframe_of(self, receiver):
        """Send a PLI for what the receiver receives, once it is bound."""
        place, index = self._place(self._receivers[receiver])
        cdef LoadThread* t = self._enter(place)
        cdef Endpoint* e = t.endpoints[<int>index]
        cdef int i
        for i in range(e.stream_count):
            if e.streams[i].id == receiver:
                e.streams[i].pli_due_ns = load_now_ns()
        endpoint_poll(t, e, load_now_ns())
        self._leave(place)

    def set_sending(self, bint sending):
        """Start or pause all senders of the process."""
        cdef int thread
        cdef int32_t i
        cdef LoadThread* t
        for thread in range(self._thread_count):
            t = self._enter(thread)
            t.sending = sending
            for i in range(t.endpoint_count):
                if t.endpoints[i] != NULL and t.endpoints[i].sender_count:
                    endpoint_poll(t, t.endpoints[i], load_now_ns())
            self._leave(thread)

    # --- what happened ----------------------------------------------------------------------------------------------

    @property
    def event_fd(self):
        """Readable when events wait; take_events resets it."""
        return self._event_fd

    def take_events(self, int limit=256):
        """Return up to `limit` events, see EventKind. What is left rings again."""
        cdef LoadThread* t
        cdef LoadEvent* v
        cdef int thread
        cdef bint has_more = False
        cdef list taken = []
        try:
            os.eventfd_read(self._event_fd)
        except BlockingIOError:
            pass
        for thread in range(self._thread_count):
            t = self._enter(thread)
            t.rang = 0
            try:
                while t.first_event != NULL and len(taken) < limit:
                    v = t.first_event
                    payload = PyBytes_FromStringAndSize(<const char*>v.payload, v.payload_bytes) if v.payload != NULL else None
                    taken.append((_KINDS[v.kind], int(v.endpoint), int(v.now_ns), int(v.subject), payload))
                    t.first_event = v.next
                    if t.first_event == NULL:
                        t.last_event = NULL
                    t.event_count -= 1
                    free(v.payload)
                    free(v)
                has_more = has_more or t.first_event != NULL
            finally:
                self._leave(thread)
        if has_more:
            os.eventfd_write(self._event_fd, 1)
        return taken

    def stats(self):
        """Return what was counted since start or the last reset: arrays "endpoints", "senders", "receivers", "threads",
        histograms "delay" (by receiver), "lateness" and "drain_gap" (by thread) over HISTOGRAM_EDGES_NS, "counters", "verdict"."""
        cdef int thread
        cdef LoadThread* t
        cdef int endpoints
        cdef dict parts = {}
        threads = np.zeros(self._thread_count, THREAD_DTYPE)
        for thread in range(self._thread_count):
            t = self._enter(thread)
            try:
                collect(t, parts)
                endpoints = sum([t.endpoints[i] != NULL for i in range(t.endpoint_count)])
            finally:
                self._leave(thread)
            cpu_ns, wait_ns, now_ns = self._thread_clocks(thread)
            mark = self._marks.get(thread, (0, 0, now_ns))
            threads[thread] = (thread, runner_is_running(self._threads[thread]), endpoints, cpu_ns - mark[0],
                               max(wait_ns - mark[1], 0), now_ns - mark[2])
        found = lgstats.merge(parts)
        found["threads"] = threads
        for name in ("receive_overflow", "refused", "unbound", "unauthentic", "malformed"):
            found["counters"][name] = int(found["endpoints"][name].sum())
        found["verdict"] = lgstats.verdict(found, self._drain_ms, self._is_lazy)
        return found

    cdef tuple _thread_clocks(self, int thread):
        tid = runner_tid(self._threads[thread])
        return (runner_cpu_ns(self._threads[thread]), _scheduler_wait_ns(tid) if tid else 0, load_now_ns())

    def reset_stats(self):
        """Begin a window of measurement: counts, histograms and processor times start at zero, streams go on."""
        cdef int thread
        for thread in range(self._thread_count):
            reset_counts(self._enter(thread))
            self._leave(thread)
            self._marks[thread] = self._thread_clocks(thread)


cdef bytes _default_key(uint64_t seed):
    cdef uint64_t[2] words
    words[0] = trace_seed(seed, 0x6b6579)
    words[1] = trace_seed(seed, 0x6b657a)
    return PyBytes_FromStringAndSize(<const char*>words, 16)


cdef int _check_ice(object ufrag, object password) except -1:
    # RFC 8839 section 5.4.
    if not 4 <= len(ufrag.encode()) <= 256 or not 22 <= len(password.encode()) <= 256:
        raise ValueError("a ufrag has 4 to 256 characters, a password 22 to 256")
    return 0


cdef int _set_local(Endpoint* e, object ufrag, object password) except -1:
    cdef bytes name = ufrag.encode()
    cdef bytes secret = password.encode()
    agent_set_local(&e.ice, <const uint8_t*>name, len(name), <const uint8_t*>secret, len(secret))
    return 0


cdef int _set_remote(LoadThread* t, Endpoint* e, object remote, object ufrag, object password) except -1:
    cdef SockAddr address
    cdef bytes name = ufrag.encode()
    cdef bytes secret = password.encode()
    _check_ice(ufrag, password)
    parse_address(remote[0], remote[1], &address)
    if address.port == 0:
        raise ValueError("the remote port is 0")
    if address.family != e.local.family:
        raise ValueError(f"remote {remote[0]} is of another family than the endpoint")
    if socket_connect(e, &address) < 0:
        raise OSError(errno, f"remote {remote[0]} port {remote[1]}: {os.strerror(errno)}")
    if agent_set_remote(&e.ice, <const uint8_t*>name, len(name), <const uint8_t*>secret, len(secret), load_now_ns()) < 0:
        raise MemoryError("ICE agent")
    endpoint_poll(t, e, load_now_ns())
    return 0

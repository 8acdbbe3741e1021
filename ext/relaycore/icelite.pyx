"""ICE-lite state of one transport: which tuples are valid, which of them is selected, when the peer counts as gone.

Spec: RFC 8445 sections 2.5 (lite), 7.3 (receiving a check), 8.1.1 (nomination), 9 (restart). A lite agent sends no checks, so a
tuple is valid once an authenticated check came over it and was answered.

What moves `selected`, and nothing else does:
- a check with USE-CANDIDATE on another tuple, when that one's priority is higher; when it is equal and the nomination is new
  (a NAT that rebound: same candidate, new mapping); or when the selected tuple was silent for 5 s (a phone's new network).
  Agents that nominate aggressively put USE-CANDIDATE on every check of every tuple: a lower priority therefore never takes
  the place of a tuple that is heard, and equal ones do not alternate.
- ice_poll, when the selected tuple is silent for 5 s and another nominated one had a check within them.
"""
cimport cython
from libc.stdint cimport uint16_t, uint32_t, int64_t
from libc.string cimport memcmp, memcpy, memset
from relaycore.errs cimport E_LIMIT
from relaycore.stun cimport SockAddr
from relaycore.units cimport ms

cdef enum:
    SILENT_MS = 5000               # agents check a selected pair every 2.5 s (libwebrtc) to 6 s (RFC 7675 with jitter, while media flows)
    DEAD_MS = 30000                # consent expires after as long (RFC 7675 section 5.1)


cdef inline bint _is_silent(const IceTuple* t, int64_t now_ns) noexcept nogil:
    return now_ns - t.last_check_ns > ms(SILENT_MS) and now_ns - t.last_receive_ns > ms(SILENT_MS)


cdef inline bint _was_checked(const IceTuple* t, int64_t now_ns) noexcept nogil:
    return now_ns - t.last_check_ns <= ms(SILENT_MS)


cdef void ice_reset(IceLite* ice, int64_t now_ns) noexcept nogil:
    """Forget all tuples; the credentials stay. The 30 s start now."""
    memset(ice.tuples, 0, sizeof(ice.tuples))
    ice.selected = ICE_NO_TUPLE
    ice.created_ns = now_ns
    ice.last_valid_ns = now_ns
    ice.dead = 0


cdef void ice_begin_generation(IceLite* ice) noexcept nogil:
    cdef int i
    for i in range(ICE_MAX_TUPLES):
        ice.tuples[i].nominated = 0
    memset(ice.previous_password, 0, sizeof(ice.previous_password))
    ice.previous_password_bytes = 0
    ice.previous_ufrag_bytes = 0


cdef int ice_find(const IceLite* ice, const SockAddr* remote, uint16_t socket_index) noexcept nogil:
    cdef int i
    for i in range(ICE_MAX_TUPLES):
        if (ice.tuples[i].used and ice.tuples[i].socket_index == socket_index
                and memcmp(&ice.tuples[i].remote, remote, sizeof(SockAddr)) == 0):
            return i
    return ICE_NO_TUPLE


cdef int _make_place(const IceLite* ice, int64_t now_ns) noexcept nogil:
    """Return a free place, else that of the unnominated tuple heard longest ago, else that of a silent nominated one."""
    cdef int oldest = ICE_NO_TUPLE
    cdef int oldest_nominated = ICE_NO_TUPLE
    cdef const IceTuple* t
    cdef int i
    for i in range(ICE_MAX_TUPLES):
        t = &ice.tuples[i]
        if not t.used:
            return i
        if i == ice.selected:
            continue
        # An agent that is refused here tries again; one whose candidate was evicted comes back with its next check.
        if not t.nominated:
            if oldest == ICE_NO_TUPLE or t.last_check_ns < ice.tuples[oldest].last_check_ns:
                oldest = i
        elif _is_silent(t, now_ns):
            if oldest_nominated == ICE_NO_TUPLE or t.last_check_ns < ice.tuples[oldest_nominated].last_check_ns:
                oldest_nominated = i
    if oldest != ICE_NO_TUPLE:
        return oldest
    return oldest_nominated if oldest_nominated != ICE_NO_TUPLE else E_LIMIT


cdef bint _takes_over(const IceLite* ice, uint32_t priority, bint is_new_nomination, int64_t now_ns) noexcept nogil:
    """Whether a nominating check on another tuple moves the selection."""
    cdef const IceTuple* current
    if ice.selected == ICE_NO_TUPLE:
        return True
    current = &ice.tuples[ice.selected]
    if not current.nominated or _is_silent(current, now_ns):
        return True
    return priority > current.priority or (priority == current.priority and is_new_nomination)


cdef int ice_on_check(IceLite* ice, const SockAddr* remote, uint16_t socket_index, uint32_t priority, bint use_candidate, int64_t now_ns, int* selected_changed) noexcept nogil:
    """Enter one authenticated check; see the module's page for what it may move.

    A check that arrives after the 30 s revives the transport, and *selected_changed tells so when a tuple is selected.
    Errors: E_LIMIT.
    """
    cdef IceTuple* t
    cdef bint is_new_nomination
    cdef bint was_dead = ice.dead
    cdef int index = ice_find(ice, remote, socket_index)
    selected_changed[0] = 0
    ice.last_valid_ns = now_ns
    ice.dead = 0
    if was_dead and ice.selected != ICE_NO_TUPLE:
        selected_changed[0] = 1
    if index == ICE_NO_TUPLE:
        index = _make_place(ice, now_ns)
        if index < 0:
            return index
        t = &ice.tuples[index]
        memset(t, 0, sizeof(IceTuple))
        memcpy(&t.remote, remote, sizeof(SockAddr))
        t.socket_index = socket_index
        t.used = 1
        is_new_nomination = True
        # Nothing was received yet, and 0 may lie anywhere on the clock.
        t.last_receive_ns = now_ns
    else:
        t = &ice.tuples[index]
        is_new_nomination = not t.nominated or not _was_checked(t, now_ns)
    # Firefox's consent checks carry the priority of a host candidate, above that of any check it nominates with: what counts
    # is the priority a tuple was nominated under.
    if use_candidate or not t.nominated:
        t.priority = priority
    t.last_check_ns = now_ns
    if use_candidate:
        t.nominated = 1
        if index != ice.selected and _takes_over(ice, priority, is_new_nomination, now_ns):
            ice.selected = index
            selected_changed[0] = 1
    return index


cdef int _best_heard(const IceLite* ice, int64_t now_ns) noexcept nogil:
    """Return the nominated tuple of the highest priority, beside the selected one, that had a check lately; ICE_NO_TUPLE: none."""
    cdef int best = ICE_NO_TUPLE
    cdef const IceTuple* t
    cdef int i
    for i in range(ICE_MAX_TUPLES):
        t = &ice.tuples[i]
        if i == ice.selected or not t.used or not t.nominated or not _was_checked(t, now_ns):
            continue
        if best == ICE_NO_TUPLE or t.priority > ice.tuples[best].priority:
            best = i
    return best


cdef int ice_drop(IceLite* ice, int index, int64_t now_ns) noexcept nogil:
    memset(&ice.tuples[index], 0, sizeof(IceTuple))
    if index != ice.selected:
        return 0
    ice.selected = _best_heard(ice, now_ns)
    return 1


cdef int ice_poll(IceLite* ice, int64_t now_ns) noexcept nogil:
    cdef int best
    if ice.dead:
        return 0
    if now_ns - ice.last_valid_ns > ms(DEAD_MS):
        ice.dead = 1
        return 2
    if ice.selected == ICE_NO_TUPLE or not _is_silent(&ice.tuples[ice.selected], now_ns):
        return 0
    best = _best_heard(ice, now_ns)
    if best == ICE_NO_TUPLE:
        return 0
    ice.selected = best
    return 1


@cython.final
cdef class IceFace:
    """Test face of one IceLite; an address is a packed IPv4 or IPv6 and a port."""
    cdef IceLite ice

    def __cinit__(self, int64_t now_ns=0):
        memset(&self.ice, 0, sizeof(IceLite))
        ice_reset(&self.ice, now_ns)

    cdef int _fill(self, SockAddr* remote, bytes ip, uint16_t port) except -1:
        if len(ip) not in (4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        memset(remote, 0, sizeof(SockAddr))
        remote.family = 4 if len(ip) == 4 else 6
        remote.port = port
        memcpy(remote.ip, <const char*>ip, <size_t>len(ip))
        return 0

    def on_check(self, bytes ip not None, uint16_t port, uint32_t priority, bint use_candidate, int64_t now_ns, *, uint16_t socket_index=0):
        """Enter a check; return (tuple index or negative code, whether selected changed)."""
        cdef SockAddr remote
        cdef int changed = 0
        cdef int index
        self._fill(&remote, ip, port)
        index = ice_on_check(&self.ice, &remote, socket_index, priority, use_candidate, now_ns, &changed)
        return index, bool(changed)

    def on_media(self, int index, int64_t now_ns):
        """An authenticated packet came over tuple `index`."""
        if not 0 <= index < <int>ICE_MAX_TUPLES:
            raise ValueError("no such tuple")
        self.ice.tuples[index].last_receive_ns = now_ns

    def find(self, bytes ip not None, uint16_t port, *, uint16_t socket_index=0):
        """Return the index of a tuple, -1 when it is unknown."""
        cdef SockAddr remote
        self._fill(&remote, ip, port)
        return ice_find(&self.ice, &remote, socket_index)

    def poll(self, int64_t now_ns):
        """Return what ice_poll returns."""
        return ice_poll(&self.ice, now_ns)

    def drop(self, int index, int64_t now_ns):
        """A tuple can carry nothing any more; return whether `selected` moved."""
        if not 0 <= index < <int>ICE_MAX_TUPLES:
            raise ValueError("no such tuple")
        return bool(ice_drop(&self.ice, index, now_ns))

    def begin_generation(self):
        """The first check under new credentials came."""
        self.ice.previous_password_bytes = 4
        ice_begin_generation(&self.ice)
        return self.ice.previous_password_bytes == 0

    @property
    def selected(self):
        return self.ice.selected

    @property
    def is_dead(self):
        return bool(self.ice.dead)

    def nominated(self):
        """Return the indices of the nominated tuples."""
        return [i for i in range(<int>ICE_MAX_TUPLES) if self.ice.tuples[<int>i].used and self.ice.tuples[<int>i].nominated]

"""ICE-lite state of one transport (RFC 8445 sections 2.5, 7.3; DESIGN section 4): valid tuples, nomination, expiry."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t
from relaycore.stun cimport SockAddr

cdef enum:
    ICE_MAX_TUPLES = 8
    ICE_NO_TUPLE = -1

ctypedef struct IceTuple:
    SockAddr remote
    uint16_t socket_index              # which local socket it arrived on
    uint8_t used
    uint8_t nominated
    uint32_t priority
    int64_t last_check_ns
    int64_t last_receive_ns            # any authenticated packet; keeps a tuple from counting as silent, never selects one

ctypedef struct IceLite:               # zero-initialise, then ice_reset
    uint8_t ufrag[64]
    uint8_t ufrag_bytes
    uint8_t password[128]
    uint8_t password_bytes
    uint8_t previous_ufrag[64]
    uint8_t previous_ufrag_bytes
    uint8_t previous_password[128]     # before an ICE restart; still answered until the first check with the new one
    uint8_t previous_password_bytes
    IceTuple tuples[8]
    int selected                       # index or ICE_NO_TUPLE
    int64_t created_ns
    int64_t last_valid_ns
    uint8_t dead                       # no valid check for 30 s

cdef void ice_reset(IceLite* ice, int64_t now_ns) noexcept nogil
# An authenticated check arrived. Returns the tuple index, E_LIMIT when the table is full of fresher tuples (oldest
# unnominated is evicted first). *selected_changed is 1 when `selected` moved.
cdef int ice_on_check(IceLite* ice, const SockAddr* remote, uint16_t socket_index, uint32_t priority, bint use_candidate, int64_t now_ns, int* selected_changed) noexcept nogil
cdef int ice_find(const IceLite* ice, const SockAddr* remote, uint16_t socket_index) noexcept nogil     # index or ICE_NO_TUPLE
# Once a second: a nominated tuple silent for 5 s loses to another; 30 s without a valid check = dead. Returns 1 if selected moved, 2 if now dead.
cdef int ice_poll(IceLite* ice, int64_t now_ns) noexcept nogil
# A tuple can carry nothing any more (its TCP connection is over). Returns 1 if selected moved: to the best nominated tuple that
# is heard, or to none until a check nominates one.
cdef int ice_drop(IceLite* ice, int index, int64_t now_ns) noexcept nogil
# The first check under the credentials of an ICE restart came: the nominations of the former ones no longer hold anybody off
# (RFC 8445 section 9), and the former password is wiped. The selected tuple stays until a check nominates one.
cdef void ice_begin_generation(IceLite* ice) noexcept nogil

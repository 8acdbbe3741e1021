"""The ICE agent of one load endpoint (RFC 8445): one pair, checks, consent (RFC 7675), answers to the other side's checks."""
from libc.stdint cimport uint8_t, uint16_t, int64_t, uint64_t
from relaycore.cipher cimport HmacKey
from relaycore.stun cimport SockAddr

cdef enum:
    AGENT_UFRAG_BYTES = 256
    AGENT_PASSWORD_BYTES = 256
    AGENT_CHECKS = 8               # transactions that may still be answered
    AGENT_MESSAGE_BYTES = 700      # no check or answer of ours is longer

cdef enum AgentOutcome:            # bits
    AGENT_REPLY = 1                # reply_bytes are to be sent
    AGENT_CONNECTED = 2            # the pair became usable
    AGENT_CHECK_NOW = 4            # the peer speaks; our own check need not wait

ctypedef struct IceAgent:          # zero-initialise
    uint8_t local_ufrag[256]
    uint16_t local_ufrag_bytes
    uint8_t local_password[256]
    uint16_t local_password_bytes
    uint8_t remote_ufrag[256]
    uint16_t remote_ufrag_bytes
    HmacKey* remote_key            # owned; made of the remote password; NULL = no remote yet
    uint64_t tie_breaker
    uint8_t is_controlling
    uint8_t connected
    uint8_t is_dead                # 30 s without an answer
    uint8_t answered               # a check of ours was
    uint8_t nominated              # the peer, controlling, has chosen this pair
    uint8_t transactions[8][12]
    int64_t sent_ns[8]             # 0 = answered or never sent
    int next_transaction
    int64_t check_due_ns
    int64_t interval_ns
    int64_t last_valid_ns
    int64_t rtt_ns                 # smoothed; 0 = unknown
    uint64_t checks_sent
    uint64_t checks_answered       # ours, by the peer
    uint64_t requests_answered     # the peer's, by us
    uint64_t refused               # messages that were wrong, unauthentic or nobody's

cdef int agent_set_local(IceAgent* a, const uint8_t* ufrag, Py_ssize_t ufrag_bytes, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil
# Forgets the pair: new checks are due at now_ns. E_OK, E_LENGTH, E_MEMORY.
cdef int agent_set_remote(IceAgent* a, const uint8_t* ufrag, Py_ssize_t ufrag_bytes, const uint8_t* password, Py_ssize_t password_bytes, int64_t now_ns) noexcept nogil
cdef void agent_free(IceAgent* a) noexcept nogil
# The next check: writes it and moves check_due_ns. `random` gives the transaction. Bytes, or E_STATE without a remote.
cdef int agent_write_check(IceAgent* a, uint8_t* dst, Py_ssize_t cap, uint64_t random, int64_t now_ns) noexcept nogil
# One STUN datagram. Returns AgentOutcome bits; `reply` needs AGENT_MESSAGE_BYTES.
cdef int agent_receive(IceAgent* a, const uint8_t* buf, Py_ssize_t n, const SockAddr* remote, uint8_t* reply, int* reply_bytes, int64_t now_ns) noexcept nogil
# True once, when consent was lost.
cdef bint agent_expired(IceAgent* a, int64_t now_ns) noexcept nogil

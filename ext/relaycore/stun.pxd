"""STUN binding requests as an ICE-lite agent needs them (RFC 8489, RFC 8445): parse, authenticate, answer."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

ctypedef struct SockAddr:              # one remote address, comparable by memcmp (always zero-initialised first)
    uint8_t family                     # 4 or 6
    uint8_t reserved
    uint16_t port                      # host order
    uint8_t ip[16]                     # IPv4 in the first four bytes

ctypedef struct StunRequest:           # view; pointers borrow the datagram
    const uint8_t* transaction_id      # 12 bytes
    const uint8_t* username            # "local_ufrag:remote_ufrag"; NULL when absent
    uint16_t username_bytes
    uint16_t local_ufrag_bytes         # up to the colon
    uint32_t priority
    uint8_t has_priority
    uint8_t use_candidate
    uint8_t ice_controlling            # 1 controlling, 0 controlled attribute seen, 2 neither
    uint8_t has_fingerprint
    uint16_t integrity_offset          # of the MESSAGE-INTEGRITY attribute; 0 when absent
    uint16_t unknown_required[4]       # comprehension-required attributes we do not know
    uint8_t unknown_count

# A binding request only. Errors: E_SHORT, E_FORMAT (cookie, length, attribute overrun), E_UNSUPPORTED (other method or class),
# E_AUTH (FINGERPRINT present and wrong).
cdef int parse_stun_request(const uint8_t* buf, Py_ssize_t n, StunRequest* out) noexcept nogil
cdef int check_stun_integrity(const uint8_t* buf, Py_ssize_t n, const StunRequest* r, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil  # E_OK, E_AUTH
# Success response with XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY, FINGERPRINT. Returns bytes or E_NO_SPACE.
cdef int write_stun_success(uint8_t* dst, Py_ssize_t cap, const uint8_t* transaction_id, const SockAddr* mapped, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil
# Error response 400, 401, 420 (with UNKNOWN-ATTRIBUTES of r) or 487; password NULL = no MESSAGE-INTEGRITY.
cdef int write_stun_error(uint8_t* dst, Py_ssize_t cap, const StunRequest* r, int code, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil

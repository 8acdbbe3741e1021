"""ICE for an endpoint that knows its one remote candidate: what a browser does once it has chosen a pair.

Spec: RFC 8445 section 7.2 (checks), section 7.3 (answers), section 7.3.1.1 (roles); RFC 7675 section 5.1 (consent: a check
every few seconds, none answered for 30 s = sending must stop); RFC 8489 section 14 (attributes). Deliberately absent:
gathering, several candidates, TURN.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from relaycore.be cimport get_u16, get_u32, need, put_u16, put_u32, put_u64
from relaycore.cipher cimport equal_bytes, hmac_free, hmac_new, hmac_sha1
from relaycore.errs cimport E_LENGTH, E_MEMORY, E_NO_SPACE, E_OK, E_STATE
from relaycore.stun cimport SockAddr, StunRequest, check_stun_integrity, parse_stun_request, write_stun_error, write_stun_success
from relaycore.units cimport ms

cdef enum:
    HEAD_BYTES = 20
    MAGIC_COOKIE = 0x2112A442
    BINDING_REQUEST = 0x0001
    BINDING_SUCCESS = 0x0101
    BINDING_ERROR = 0x0111
    ATTR_USERNAME = 0x0006
    ATTR_MESSAGE_INTEGRITY = 0x0008
    ATTR_ERROR_CODE = 0x0009
    ATTR_PRIORITY = 0x0024
    ATTR_USE_CANDIDATE = 0x0025
    ATTR_FINGERPRINT = 0x8028
    ATTR_ICE_CONTROLLED = 0x8029
    ATTR_ICE_CONTROLLING = 0x802A
    SHA1_BYTES = 20
    INTEGRITY_BYTES = 24           # with its head
    FINGERPRINT_BYTES = 8
    # RFC 8445 section 5.1.2.1 for a peer-reflexive candidate: type preference 110, local preference 65535, component 1.
    PRIORITY = 1862270975
    FIRST_RETRY_MS = 50            # libwebrtc checks a pair that is not yet writable that often
    SLOWEST_RETRY_MS = 1000
    CONSENT_MS = 2500              # as libwebrtc: five of them fit well into the 30 s of RFC 7675
    EXPIRY_MS = 30000
    ROLE_CONFLICT = 487

cdef uint32_t[256] _crc_table


cdef void _fill_crc_table() noexcept nogil:
    """CRC-32 of ITU-T V.42, reflected, as FINGERPRINT asks for (RFC 8489 section 14.7)."""
    cdef uint32_t i, value
    cdef int bit
    for i in range(256):
        value = i
        for bit in range(8):
            value = (value >> 1) ^ (<uint32_t>0xEDB88320u if value & 1 else <uint32_t>0)
        _crc_table[i] = value


_fill_crc_table()


cdef uint32_t _fingerprint(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    cdef uint32_t crc = 0xffffffffu
    cdef Py_ssize_t i
    for i in range(n):
        crc = (crc >> 8) ^ _crc_table[(crc ^ p[i]) & 0xffu]
    return crc ^ 0xffffffffu ^ <uint32_t>0x5354554eu


cdef int agent_set_local(IceAgent* a, const uint8_t* ufrag, Py_ssize_t ufrag_bytes, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil:
    if ufrag_bytes > AGENT_UFRAG_BYTES or password_bytes > AGENT_PASSWORD_BYTES:
        return E_LENGTH
    memcpy(a.local_ufrag, ufrag, <size_t>ufrag_bytes)
    a.local_ufrag_bytes = <uint16_t>ufrag_bytes
    memcpy(a.local_password, password, <size_t>password_bytes)
    a.local_password_bytes = <uint16_t>password_bytes
    return E_OK


cdef int agent_set_remote(IceAgent* a, const uint8_t* ufrag, Py_ssize_t ufrag_bytes, const uint8_t* password, Py_ssize_t password_bytes, int64_t now_ns) noexcept nogil:
    cdef HmacKey* key
    if ufrag_bytes > AGENT_UFRAG_BYTES or password_bytes > AGENT_PASSWORD_BYTES:
        return E_LENGTH
    key = hmac_new(password, password_bytes)
    if key == NULL:
        return E_MEMORY
    hmac_free(a.remote_key)
    a.remote_key = key
    memcpy(a.remote_ufrag, ufrag, <size_t>ufrag_bytes)
    a.remote_ufrag_bytes = <uint16_t>ufrag_bytes
    memset(a.sent_ns, 0, sizeof(a.sent_ns))
    a.connected = a.answered = a.nominated = a.is_dead = 0
    a.check_due_ns = now_ns
    a.interval_ns = ms(FIRST_RETRY_MS)
    a.last_valid_ns = now_ns
    return E_OK


cdef void agent_free(IceAgent* a) noexcept nogil:
    hmac_free(a.remote_key)
    a.remote_key = NULL


cdef int _put_attribute(uint8_t* dst, uint16_t kind, const uint8_t* value, uint16_t value_bytes) noexcept nogil:
    cdef int padded = (value_bytes + 3) & ~3
    put_u16(dst, kind)
    put_u16(dst + 2, value_bytes)
    memset(dst + 4, 0, <size_t>padded)
    if value_bytes:
        memcpy(dst + 4, value, value_bytes)
    return 4 + padded


cdef int agent_write_check(IceAgent* a, uint8_t* dst, Py_ssize_t cap, uint64_t random, int64_t now_ns) noexcept nogil:
    cdef uint8_t[514] text
    cdef uint8_t[20] digest
    cdef uint8_t* transaction = a.transactions[a.next_transaction]
    cdef int name_bytes = a.remote_ufrag_bytes + 1 + a.local_ufrag_bytes
    cdef int at = HEAD_BYTES
    if a.remote_key == NULL:
        return E_STATE
    if not need(cap, HEAD_BYTES + 4 + name_bytes + 3 + 12 + 8 + 4 + INTEGRITY_BYTES + FINGERPRINT_BYTES):
        return E_NO_SPACE
    put_u64(transaction, random)
    put_u32(transaction + 8, <uint32_t>(a.checks_sent & 0xffffffffu))
    put_u16(dst, BINDING_REQUEST)
    put_u32(dst + 4, MAGIC_COOKIE)
    memcpy(dst + 8, transaction, 12)
    memcpy(text, a.remote_ufrag, a.remote_ufrag_bytes)
    text[a.remote_ufrag_bytes] = c':'
    memcpy(text + a.remote_ufrag_bytes + 1, a.local_ufrag, a.local_ufrag_bytes)
    at += _put_attribute(dst + at, ATTR_USERNAME, text, <uint16_t>name_bytes)
    put_u64(text, a.tie_breaker)
    at += _put_attribute(dst + at, <uint16_t>(ATTR_ICE_CONTROLLING if a.is_controlling else ATTR_ICE_CONTROLLED), text, 8)
    put_u32(text, PRIORITY)
    at += _put_attribute(dst + at, ATTR_PRIORITY, text, 4)
    if a.is_controlling:
        at += _put_attribute(dst + at, ATTR_USE_CANDIDATE, NULL, 0)
    # Each of the last two counts the length as if the message ended with itself.
    put_u16(dst + 2, <uint16_t>(at - HEAD_BYTES + INTEGRITY_BYTES))
    if hmac_sha1(a.remote_key, dst, at, digest) < 0:
        return E_MEMORY
    at += _put_attribute(dst + at, ATTR_MESSAGE_INTEGRITY, digest, SHA1_BYTES)
    put_u16(dst + 2, <uint16_t>(at - HEAD_BYTES + FINGERPRINT_BYTES))
    put_u32(text, _fingerprint(dst, at))
    at += _put_attribute(dst + at, ATTR_FINGERPRINT, text, 4)
    a.sent_ns[a.next_transaction] = now_ns
    a.next_transaction = (a.next_transaction + 1) & (AGENT_CHECKS - 1)
    a.checks_sent += 1
    if a.connected:
        # RFC 7675 section 5.1: spread, so that thousands do not check in one moment.
        a.check_due_ns = now_ns + ms(CONSENT_MS) * (80 + <int64_t>(random % 41)) // 100
    else:
        a.check_due_ns = now_ns + a.interval_ns
        a.interval_ns = min(2 * a.interval_ns, ms(SLOWEST_RETRY_MS))
    return at


cdef int _find_transaction(const IceAgent* a, const uint8_t* id) noexcept nogil:
    cdef int i
    for i in range(AGENT_CHECKS):
        if a.sent_ns[i] and memcmp(a.transactions[i], id, 12) == 0:
            return i
    return -1


cdef int _become_connected(IceAgent* a) noexcept nogil:
    if a.connected or not a.answered or not (a.is_controlling or a.nominated):
        return 0
    a.connected = 1
    a.is_dead = 0
    return AGENT_CONNECTED


cdef int _read_error_code(const uint8_t* buf, Py_ssize_t n, Py_ssize_t end) noexcept nogil:
    """Return the code of an error response, 0 when it says none."""
    cdef Py_ssize_t at = HEAD_BYTES
    while at + 8 <= end:
        if get_u16(buf + at) == ATTR_ERROR_CODE and get_u16(buf + at + 2) >= 4:
            return (buf[at + 6] & 7) * 100 + buf[at + 7]
        at += 4 + ((get_u16(buf + at + 2) + 3) & ~3)
    return 0


cdef Py_ssize_t _integrity_offset(const uint8_t* buf, Py_ssize_t n) noexcept nogil:
    """Return where MESSAGE-INTEGRITY stands, 0 when there is none or the attributes overrun."""
    cdef Py_ssize_t at = HEAD_BYTES
    while need(n, at + 4):
        if get_u16(buf + at) == ATTR_MESSAGE_INTEGRITY:
            return at if get_u16(buf + at + 2) == SHA1_BYTES and need(n, at + INTEGRITY_BYTES) else 0
        at += 4 + ((get_u16(buf + at + 2) + 3) & ~3)
    return 0


cdef bint _is_authentic(IceAgent* a, const uint8_t* buf, Py_ssize_t n, Py_ssize_t integrity) noexcept nogil:
    cdef uint8_t[1500] copy
    cdef uint8_t[20] digest
    if integrity == 0 or not need(1500, n) or a.remote_key == NULL:
        return False
    memcpy(copy, buf, <size_t>integrity)
    put_u16(copy + 2, <uint16_t>(integrity - HEAD_BYTES + INTEGRITY_BYTES))
    return hmac_sha1(a.remote_key, copy, integrity, digest) == E_OK and equal_bytes(digest, buf + integrity + 4, SHA1_BYTES)


cdef int _on_response(IceAgent* a, const uint8_t* buf, Py_ssize_t n, int64_t now_ns) noexcept nogil:
    cdef Py_ssize_t integrity = _integrity_offset(buf, n)
    cdef int found = _find_transaction(a, buf + 8)
    cdef int64_t rtt_ns
    if found < 0 or not _is_authentic(a, buf, n, integrity):
        a.refused += 1
        return 0
    rtt_ns = now_ns - a.sent_ns[found]
    a.sent_ns[found] = 0
    if get_u16(buf) == BINDING_ERROR:
        a.refused += 1
        if _read_error_code(buf, n, integrity) == ROLE_CONFLICT:
            a.is_controlling ^= 1
            return AGENT_CHECK_NOW
        return 0
    # RFC 6298's gain for the smoothed figure.
    a.rtt_ns = rtt_ns if a.rtt_ns == 0 else a.rtt_ns + (rtt_ns - a.rtt_ns) // 8
    a.checks_answered += 1
    a.answered = 1
    a.last_valid_ns = now_ns
    if a.connected:
        return 0
    found = _become_connected(a)
    if a.connected:
        a.check_due_ns = now_ns + ms(CONSENT_MS)
    return found


cdef int _on_request(IceAgent* a, const uint8_t* buf, Py_ssize_t n, const SockAddr* remote, uint8_t* reply, int* reply_bytes) noexcept nogil:
    cdef StunRequest request
    cdef int outcome = 0
    if (parse_stun_request(buf, n, &request) < 0 or request.local_ufrag_bytes != a.local_ufrag_bytes
            or request.username == NULL or memcmp(request.username, a.local_ufrag, a.local_ufrag_bytes) != 0
            or check_stun_integrity(buf, n, &request, a.local_password, a.local_password_bytes) < 0):
        a.refused += 1
        return 0
    if request.unknown_count:
        reply_bytes[0] = write_stun_error(reply, AGENT_MESSAGE_BYTES, &request, 420, a.local_password, a.local_password_bytes)
        return AGENT_REPLY if reply_bytes[0] > 0 else 0
    if request.ice_controlling == a.is_controlling:
        # Both think alike: the peer knows better what it offered.
        a.is_controlling ^= 1
    if request.use_candidate and not a.is_controlling:
        a.nominated = 1
    reply_bytes[0] = write_stun_success(reply, AGENT_MESSAGE_BYTES, request.transaction_id, remote, a.local_password,
                                        a.local_password_bytes)
    a.requests_answered += 1
    if reply_bytes[0] > 0:
        outcome = AGENT_REPLY
    if not a.answered:
        outcome |= AGENT_CHECK_NOW
    return outcome | _become_connected(a)


cdef int agent_receive(IceAgent* a, const uint8_t* buf, Py_ssize_t n, const SockAddr* remote, uint8_t* reply, int* reply_bytes, int64_t now_ns) noexcept nogil:
    cdef uint16_t kind
    if not need(n, HEAD_BYTES) or get_u32(buf + 4) != MAGIC_COOKIE or HEAD_BYTES + get_u16(buf + 2) != n:
        a.refused += 1
        return 0
    kind = get_u16(buf)
    if kind == BINDING_REQUEST:
        return _on_request(a, buf, n, remote, reply, reply_bytes)
    if kind == BINDING_SUCCESS or kind == BINDING_ERROR:
        return _on_response(a, buf, n, now_ns)
    a.refused += 1
    return 0


cdef bint agent_expired(IceAgent* a, int64_t now_ns) noexcept nogil:
    if not a.connected or now_ns - a.last_valid_ns < ms(EXPIRY_MS):
        return False
    a.connected = a.answered = 0
    a.is_dead = 1
    a.interval_ns = ms(FIRST_RETRY_MS)
    return True

"""STUN binding requests as an ICE-lite agent meets them: parse, authenticate, answer.

Spec: RFC 8489 sections 5 (message), 14 (attributes), 9.1 (short-term credentials); RFC 8445 sections 7.1 and 16.1.
MESSAGE-INTEGRITY is HMAC-SHA1 alone: no browser sends the SHA-256 form. We send no requests, so responses are never parsed.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |0 0|     message type          |      length behind the head   |
    |                     magic cookie 0x2112A442                   |
    |                  transaction id, 12 bytes                     |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcpy, memset
from relaycore.be cimport get_u16, get_u32, need, put_u16, put_u32
from relaycore.errs cimport E_AUTH, E_FORMAT, E_INVALID, E_NO_SPACE, E_OK, E_SHORT, E_UNSUPPORTED
from relaycore.errs import raise_for

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD:
        pass
    const EVP_MD* EVP_sha1() noexcept nogil

cdef extern from "openssl/hmac.h" nogil:
    unsigned char* HMAC(const EVP_MD* md, const void* key, int key_len, const unsigned char* data, size_t data_len,
                        unsigned char* out, unsigned int* out_len) noexcept nogil

cdef extern from "openssl/crypto.h" nogil:
    int CRYPTO_memcmp(const void* a, const void* b, size_t n) noexcept nogil

cdef enum:
    HEAD_BYTES = 20
    MAX_MESSAGE_BYTES = 1500       # RFC 8489 section 6.1: within one MTU
    MAX_UNKNOWN = 4
    MAGIC_COOKIE = 0x2112A442
    FINGERPRINT_XOR = 0x5354554e
    BINDING_REQUEST = 0x0001
    BINDING_SUCCESS = 0x0101
    BINDING_ERROR = 0x0111
    ATTR_MAPPED_ADDRESS = 0x0001
    ATTR_USERNAME = 0x0006
    ATTR_MESSAGE_INTEGRITY = 0x0008
    ATTR_ERROR_CODE = 0x0009
    ATTR_UNKNOWN_ATTRIBUTES = 0x000A
    ATTR_REALM = 0x0014
    ATTR_NONCE = 0x0015
    ATTR_XOR_MAPPED_ADDRESS = 0x0020
    ATTR_PRIORITY = 0x0024
    ATTR_USE_CANDIDATE = 0x0025
    ATTR_FINGERPRINT = 0x8028
    ATTR_ICE_CONTROLLED = 0x8029
    ATTR_ICE_CONTROLLING = 0x802A
    SHA1_BYTES = 20
    INTEGRITY_BYTES = 24           # with its head
    FINGERPRINT_BYTES = 8

# CRC-32 of ITU-T V.42, reflected, as FINGERPRINT asks for (RFC 8489 section 14.7).
cdef uint32_t _crc_table[256]


cdef void _fill_crc_table() noexcept nogil:
    cdef uint32_t i, value
    cdef int bit
    for i in range(256):
        value = i
        for bit in range(8):
            value = (value >> 1) ^ (<uint32_t>0xEDB88320u if value & 1 else <uint32_t>0)
        _crc_table[i] = value


_fill_crc_table()


cdef uint32_t _crc32(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    cdef uint32_t crc = 0xffffffffu
    cdef Py_ssize_t i
    for i in range(n):
        crc = (crc >> 8) ^ _crc_table[(crc ^ p[i]) & 0xffu]
    return crc ^ 0xffffffffu


cdef inline bint _is_known(uint16_t kind) noexcept nogil:
    """Comprehension-required attributes that we read, or that RFC 8489 defines and a request may carry to no effect."""
    return (kind == ATTR_USERNAME or kind == ATTR_MESSAGE_INTEGRITY or kind == ATTR_PRIORITY or kind == ATTR_USE_CANDIDATE
            or kind == ATTR_MAPPED_ADDRESS or kind == ATTR_ERROR_CODE or kind == ATTR_UNKNOWN_ATTRIBUTES
            or kind == ATTR_REALM or kind == ATTR_NONCE or kind == ATTR_XOR_MAPPED_ADDRESS)


cdef int _take_attribute(uint16_t kind, const uint8_t* value, uint16_t value_bytes, StunRequest* out) noexcept nogil:
    """Take one attribute before MESSAGE-INTEGRITY; the first of several of one kind counts (RFC 8489 section 14)."""
    cdef const void* colon
    if kind == ATTR_USERNAME:
        if out.username == NULL:
            out.username = value
            out.username_bytes = value_bytes
            colon = memchr(value, c':', value_bytes)
            if colon != NULL:
                out.local_ufrag_bytes = <uint16_t>(<const uint8_t*>colon - value)
    elif kind == ATTR_PRIORITY:
        if value_bytes != 4:
            return E_FORMAT
        if not out.has_priority:
            out.has_priority = 1
            out.priority = get_u32(value)
    elif kind == ATTR_USE_CANDIDATE:
        if value_bytes != 0:
            return E_FORMAT
        out.use_candidate = 1
    elif kind == ATTR_ICE_CONTROLLED or kind == ATTR_ICE_CONTROLLING:
        if value_bytes != 8:
            return E_FORMAT
        if out.ice_controlling == 2:
            out.ice_controlling = 1 if kind == ATTR_ICE_CONTROLLING else 0
    elif kind < 0x8000 and not _is_known(kind) and out.unknown_count < MAX_UNKNOWN:
        out.unknown_required[out.unknown_count] = kind
        out.unknown_count += 1
    return E_OK


cdef int parse_stun_request(const uint8_t* buf, Py_ssize_t n, StunRequest* out) noexcept nogil:
    """Read a binding request; nothing of it is trusted before check_stun_integrity.

    Shape: head, then attributes of | kind 16 | length 16 | value | padding to a word |. What follows MESSAGE-INTEGRITY is
    ignored but FINGERPRINT, which comes last.     Owns: out borrows buf.
    Errors: E_SHORT, E_FORMAT, E_UNSUPPORTED (another method or class), E_AUTH (FINGERPRINT present and wrong).
    """
    cdef Py_ssize_t i = HEAD_BYTES
    cdef uint16_t kind, value_bytes
    cdef int code
    memset(out, 0, sizeof(StunRequest))
    out.ice_controlling = 2
    if not need(n, HEAD_BYTES):
        return E_SHORT
    if buf[0] & 0xc0 or get_u32(buf + 4) != MAGIC_COOKIE or n > MAX_MESSAGE_BYTES:
        return E_FORMAT
    if get_u16(buf + 2) & 3 or HEAD_BYTES + get_u16(buf + 2) != n:
        return E_FORMAT
    if get_u16(buf) != BINDING_REQUEST:
        return E_UNSUPPORTED
    out.transaction_id = buf + 8
    while i < n:
        # Lengths are multiples of four, so a head is always there once i < n.
        kind = get_u16(buf + i)
        value_bytes = get_u16(buf + i + 2)
        if not need(n - i - 4, (value_bytes + 3) & ~3):
            return E_FORMAT
        if kind == ATTR_FINGERPRINT:
            if value_bytes != 4 or i + FINGERPRINT_BYTES != n:
                return E_FORMAT
            if get_u32(buf + i + 4) != _crc32(buf, i) ^ <uint32_t>FINGERPRINT_XOR:
                return E_AUTH
            out.has_fingerprint = 1
        elif out.integrity_offset == 0:
            if kind == ATTR_MESSAGE_INTEGRITY:
                if value_bytes != SHA1_BYTES:
                    return E_FORMAT
                out.integrity_offset = <uint16_t>i
            else:
                code = _take_attribute(kind, buf + i + 4, value_bytes, out)
                if code < 0:
                    return code
        i += 4 + ((value_bytes + 3) & ~3)
    return E_OK


cdef int _hmac_sha1(const uint8_t* password, Py_ssize_t password_bytes, const uint8_t* data, Py_ssize_t n, uint8_t* out) noexcept nogil:
    cdef unsigned int out_bytes = 0
    if HMAC(EVP_sha1(), password, <int>password_bytes, data, <size_t>n, out, &out_bytes) == NULL or out_bytes != SHA1_BYTES:
        return E_AUTH
    return E_OK


cdef int check_stun_integrity(const uint8_t* buf, Py_ssize_t n, const StunRequest* r, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil:
    """Compare MESSAGE-INTEGRITY with ours, in constant time; buf and n are those that `r` was parsed from.

    Spec: RFC 8489 section 14.5: the HMAC covers all before the attribute, with a length field that ends behind it.
    Errors: E_AUTH, also when there is no MESSAGE-INTEGRITY.
    """
    cdef uint8_t[1500] message
    cdef uint8_t[20] digest
    cdef uint16_t offset = r.integrity_offset
    if offset == 0 or n > MAX_MESSAGE_BYTES or not need(n, offset + INTEGRITY_BYTES):
        return E_AUTH
    memcpy(message, buf, offset)
    put_u16(message + 2, <uint16_t>(offset + INTEGRITY_BYTES - HEAD_BYTES))
    if _hmac_sha1(password, password_bytes, message, offset, digest) < 0:
        return E_AUTH
    if CRYPTO_memcmp(digest, buf + offset + 4, SHA1_BYTES) != 0:
        return E_AUTH
    return E_OK


# --- answers --------------------------------------------------------------------------------------------------------

cdef void _write_head(uint8_t* dst, uint16_t message_type, const uint8_t* transaction_id) noexcept nogil:
    put_u16(dst, message_type)
    put_u32(dst + 4, MAGIC_COOKIE)
    memcpy(dst + 8, transaction_id, 12)


cdef int _finish(uint8_t* dst, int at, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil:
    """Append MESSAGE-INTEGRITY (unless password is NULL) and FINGERPRINT; return the message's bytes."""
    if password != NULL:
        put_u16(dst + 2, <uint16_t>(at + INTEGRITY_BYTES - HEAD_BYTES))
        put_u16(dst + at, ATTR_MESSAGE_INTEGRITY)
        put_u16(dst + at + 2, SHA1_BYTES)
        if _hmac_sha1(password, password_bytes, dst, at, dst + at + 4) < 0:
            return E_INVALID
        at += INTEGRITY_BYTES
    put_u16(dst + 2, <uint16_t>(at + FINGERPRINT_BYTES - HEAD_BYTES))
    put_u16(dst + at, ATTR_FINGERPRINT)
    put_u16(dst + at + 2, 4)
    put_u32(dst + at + 4, _crc32(dst, at) ^ <uint32_t>FINGERPRINT_XOR)
    return at + FINGERPRINT_BYTES


cdef int write_stun_success(uint8_t* dst, Py_ssize_t cap, const uint8_t* transaction_id, const SockAddr* mapped, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil:
    """Write the success response with the address the request came from (RFC 8489 section 14.2).

    Returns bytes (64 for IPv4, 76 for IPv6).     Errors: E_NO_SPACE; E_INVALID when the family is neither 4 nor 6.
    """
    cdef int address_bytes = 16 if mapped.family == 6 else 4
    cdef int at = HEAD_BYTES
    cdef int i
    if mapped.family != 4 and mapped.family != 6:
        return E_INVALID
    if not need(cap, at + 8 + address_bytes + INTEGRITY_BYTES + FINGERPRINT_BYTES):
        return E_NO_SPACE
    _write_head(dst, BINDING_SUCCESS, transaction_id)
    put_u16(dst + at, ATTR_XOR_MAPPED_ADDRESS)
    put_u16(dst + at + 2, <uint16_t>(4 + address_bytes))
    dst[at + 4] = 0
    dst[at + 5] = 2 if mapped.family == 6 else 1
    put_u16(dst + at + 6, <uint16_t>(mapped.port ^ (<uint32_t>MAGIC_COOKIE >> 16)))
    # The mask is the cookie followed by the transaction id: just what stands at dst + 4.
    for i in range(address_bytes):
        dst[at + 8 + i] = mapped.ip[i] ^ dst[4 + i]
    return _finish(dst, at + 8 + address_bytes, password, password_bytes)


cdef int _write_reason(uint8_t* dst, Py_ssize_t cap, int code, const char* reason, int reason_bytes) noexcept nogil:
    cdef int padded = (reason_bytes + 3) & ~3
    if not need(cap, 8 + padded):
        return E_NO_SPACE
    put_u16(dst, ATTR_ERROR_CODE)
    put_u16(dst + 2, <uint16_t>(4 + reason_bytes))
    put_u16(dst + 4, 0)
    dst[6] = <uint8_t>(code // 100)
    dst[7] = <uint8_t>(code % 100)
    memset(dst + 8, 0, <size_t>padded)
    memcpy(dst + 8, reason, <size_t>reason_bytes)
    return 8 + padded


cdef int write_stun_error(uint8_t* dst, Py_ssize_t cap, const StunRequest* r, int code, const uint8_t* password, Py_ssize_t password_bytes) noexcept nogil:
    """Write an error response (RFC 8489 section 14.8) of code 400, 401, 420 or 487 (RFC 8445 section 7.3.1.1).

    Errors: E_NO_SPACE; E_INVALID for another code.
    """
    cdef int at = HEAD_BYTES
    cdef int n, i
    if not need(cap, HEAD_BYTES):
        return E_NO_SPACE
    _write_head(dst, BINDING_ERROR, r.transaction_id)
    if code == 400:
        n = _write_reason(dst + at, cap - at, code, b"Bad Request", 11)
    elif code == 401:
        n = _write_reason(dst + at, cap - at, code, b"Unauthenticated", 15)
    elif code == 420:
        n = _write_reason(dst + at, cap - at, code, b"Unknown Attribute", 17)
    elif code == 487:
        n = _write_reason(dst + at, cap - at, code, b"Role Conflict", 13)
    else:
        return E_INVALID
    if n < 0:
        return n
    at += n
    if code == 420 and r.unknown_count:
        n = 4 + ((2 * r.unknown_count + 3) & ~3)
        if not need(cap, at + n):
            return E_NO_SPACE
        put_u16(dst + at, ATTR_UNKNOWN_ATTRIBUTES)
        put_u16(dst + at + 2, <uint16_t>(2 * r.unknown_count))
        memset(dst + at + 4, 0, <size_t>(n - 4))
        for i in range(r.unknown_count):
            put_u16(dst + at + 4 + 2 * i, r.unknown_required[i])
        at += n
    if not need(cap, at + (INTEGRITY_BYTES if password != NULL else 0) + FINGERPRINT_BYTES):
        return E_NO_SPACE
    return _finish(dst, at, password, password_bytes)


# --- test face ------------------------------------------------------------------------------------------------------

def parse(bytes data not None):
    """Test face: parse a binding request into a dict; WireError on anything else."""
    cdef StunRequest r
    raise_for(parse_stun_request(<const uint8_t*>data, len(data), &r))
    return {
        "transaction_id": <bytes>(<const char*>r.transaction_id)[:12],
        "username": None if r.username == NULL else <bytes>(<const char*>r.username)[:r.username_bytes],
        "local_ufrag_bytes": r.local_ufrag_bytes,
        "priority": r.priority if r.has_priority else None,
        "use_candidate": bool(r.use_candidate),
        "role": ("controlled", "controlling", None)[r.ice_controlling],
        "has_fingerprint": bool(r.has_fingerprint),
        "integrity_offset": r.integrity_offset,
        "unknown_required": [r.unknown_required[i] for i in range(r.unknown_count)],
    }


def is_authentic(bytes data not None, bytes password not None):
    """Test face: return whether MESSAGE-INTEGRITY fits the password; WireError when it is no binding request."""
    cdef StunRequest r
    raise_for(parse_stun_request(<const uint8_t*>data, len(data), &r))
    return check_stun_integrity(<const uint8_t*>data, len(data), &r, <const uint8_t*>password, len(password)) == E_OK


def success(bytes transaction_id not None, bytes ip not None, uint16_t port, bytes password not None, Py_ssize_t cap=256):
    """Test face: build a success response to a packed IPv4 or IPv6 address, in at most cap (<= 256) bytes."""
    cdef uint8_t[256] buf
    cdef SockAddr mapped
    cdef int n
    if len(transaction_id) != 12 or len(ip) not in (4, 16) or not 0 <= cap <= 256:
        raise ValueError("a transaction id has 12 bytes, an address 4 or 16, cap is 0..256")
    memset(&mapped, 0, sizeof(mapped))
    mapped.family = 4 if len(ip) == 4 else 6
    mapped.port = port
    memcpy(mapped.ip, <const uint8_t*>ip, <size_t>len(ip))
    n = raise_for(write_stun_success(buf, cap, <const uint8_t*>transaction_id, &mapped, <const uint8_t*>password, len(password)))
    return (<const char*>buf)[:n]


def error(bytes request not None, int code, bytes password, Py_ssize_t cap=256):
    """Test face: build the error response of a code to a request, in at most cap (<= 256) bytes; password None = no integrity."""
    cdef uint8_t[256] buf
    cdef StunRequest r
    cdef const uint8_t* key = NULL
    cdef Py_ssize_t key_bytes = 0
    cdef int n
    if not 0 <= cap <= 256:
        raise ValueError("cap is 0..256")
    if password is not None:
        key = <const uint8_t*>password
        key_bytes = len(password)
    raise_for(parse_stun_request(<const uint8_t*>request, len(request), &r))
    n = raise_for(write_stun_error(buf, cap, &r, code, key, key_bytes))
    return (<const char*>buf)[:n]

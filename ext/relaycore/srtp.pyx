"""SRTP and SRTCP packets of one transport and direction: keys, indexes, replay windows, protect and unprotect.

Spec: RFC 3711 (section 3 packets and index, 4.1.1 AES-CM, 4.2 authentication, 4.3 key derivation), RFC 7714 (AES-GCM,
sections 8 to 11). No MKI, no re-keying (key derivation rate 0): browsers use neither.
- Index state of RTP belongs to the stream that owns it; an index moves only after its packet was authentic.
- SRTCP indexes run per sender SSRC on the receiving side (RFC 3711 section 3.2.3: one context per SSRC): libsrtp, and so
  every browser, counts them separately. Sending uses one counter for all SSRCs, which is unique for each of them too.
- A second protect under one index is refused before the cipher runs: GCM under a repeated IV gives the key away.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t, uintptr_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, realloc
from libc.string cimport memcpy, memset
from relaycore.be cimport get_u16, get_u32, put_u16, put_u32
from relaycore.cipher cimport (
    AEAD_IV_BYTES, AEAD_TAG_BYTES, CM_IV_BYTES, SHA1_BYTES, AeadKey, CmKey, HmacKey, aead_free, aead_new, aead_open,
    aead_prefetch, aead_prefetch_schedule,
    aead_seal, cipher_name, cm_crypt, cm_free, cm_keystream, cm_new, equal_bytes, hmac_free, hmac_new, hmac_sha1,
    wipe_bytes,
)
from relaycore.errs cimport (
    E_AUTH, E_INDEX_REUSED, E_INVALID, E_KEY_EXHAUSTED, E_LIMIT, E_MEMORY, E_NO_SPACE, E_OK, E_SHORT,
    E_TOO_OLD, E_UNSUPPORTED,
)
from relaycore.keymem cimport keymem_free, keymem_new
from relaycore.srtpindex cimport INDEX_WINDOW, WINDOW_BYTES, check_index, guess_index, mark_index

cdef extern from *:
    """
    #ifndef RELAY_DEBUG
    #define RELAY_DEBUG 0
    #endif
    """
    enum: RELAY_DEBUG

cdef enum:
    RTP_FIXED_BYTES = 12
    RTCP_HEAD_BYTES = 8            # header and sender SSRC stay clear
    RTCP_WORD_BYTES = 4            # E bit and 31-bit index
    CM_TAG_BYTES = 10              # HMAC-SHA1-80
    ROC_BYTES = 4
    FIRST_SOURCES = 4
    # One peer may use that many RTCP sender SSRCs: Firefox reports from one per m-line, and 1,024 is far above any call.
    # Nothing is evicted, because a forgotten window would accept replays.
    RTCP_MAX_SOURCES = 1024

cdef const int64_t MAX_RTP_INDEX = <int64_t>0xffffffffffff       # 48 bits
cdef const int64_t MAX_RTCP_INDEX = 0x7fffffff                   # 31 bits

# Labels of RFC 3711 section 4.3.1, by session key; RTCP's are the same plus 3 (section 4.3.2).
cdef enum:
    LABEL_ENCRYPTION = 0
    LABEL_AUTHENTICATION = 1
    LABEL_SALT = 2
    LABEL_RTCP = 3

cdef struct SessionKeys:           # plain key bytes, only ever on the stack; wiped by their user
    uint8_t encryption[32]
    uint8_t authentication[SHA1_BYTES]
    uint8_t salt[14]

cdef extern from *:
    """
    static inline void srtp_prefetch_line(const void *p) { __builtin_prefetch(p); }
    """
    void srtp_prefetch_line(const void* p) noexcept nogil

cdef struct KeySet:
    AeadKey* aead                  # owned; GCM profiles
    CmKey* cm                      # owned; SHA1_80 profile, with hmac
    HmacKey* hmac                  # owned
    uint8_t salt[14]

cdef struct SrtpContext:
    int profile
    KeySet rtp
    KeySet rtcp
    uint64_t rtp_packets           # protected so far, all SSRCs together
    int64_t next_rtcp_index
    uint32_t source_count
    uint32_t source_capacity
    uint32_t* source_ssrcs         # owned; apart from the states so that the search runs over 4 bytes each
    SrtpRxState* source_states     # owned


cdef int srtp_key_bytes(int profile) noexcept nogil:
    if profile == SRTP_AES128_CM_SHA1_80 or profile == SRTP_AEAD_AES_128_GCM:
        return 16
    return 32 if profile == SRTP_AEAD_AES_256_GCM else <int>E_UNSUPPORTED


cdef int srtp_salt_bytes(int profile) noexcept nogil:
    if profile == SRTP_AES128_CM_SHA1_80:
        return 14
    if profile == SRTP_AEAD_AES_128_GCM or profile == SRTP_AEAD_AES_256_GCM:
        return 12
    return E_UNSUPPORTED


cdef const char* srtp_backend_name(int backend) noexcept nogil:
    return cipher_name(backend)


# Keys


cdef int _derive(int profile, const uint8_t* master_key, const uint8_t* master_salt, int label, uint8_t* dst,
                 Py_ssize_t n) noexcept nogil:
    """Write one session key: the AES-CM keystream under the master key from counter block (label XOR salt) * 2^16.

    Spec: RFC 3711 section 4.3.1 and 4.3.3; RFC 7714 section 11: a 96-bit salt is padded with zeros on its right.
    """
    cdef uint8_t block[CM_IV_BYTES]
    cdef int salt_bytes = srtp_salt_bytes(profile)
    if salt_bytes < 0:
        return E_UNSUPPORTED
    memset(block, 0, sizeof(block))
    memcpy(block, master_salt, <size_t>salt_bytes)
    block[7] = <uint8_t>(block[7] ^ label)
    return cm_keystream(master_key, srtp_key_bytes(profile), block, dst, n)


cdef int _derive_set(int profile, const uint8_t* master_key, const uint8_t* master_salt, int first_label,
                     SessionKeys* out) noexcept nogil:
    cdef int code = _derive(profile, master_key, master_salt, first_label + LABEL_ENCRYPTION, out.encryption,
                            srtp_key_bytes(profile))
    if code == E_OK:
        code = _derive(profile, master_key, master_salt, first_label + LABEL_SALT, out.salt, srtp_salt_bytes(profile))
    if code == E_OK and profile == SRTP_AES128_CM_SHA1_80:
        code = _derive(profile, master_key, master_salt, first_label + LABEL_AUTHENTICATION, out.authentication,
                       SHA1_BYTES)
    return code


cdef bint _set_keys(KeySet* set, int profile, int backend, const SessionKeys* keys) noexcept nogil:
    memcpy(set.salt, keys.salt, sizeof(set.salt))
    if profile == SRTP_AES128_CM_SHA1_80:
        set.cm = cm_new(backend, keys.encryption)
        set.hmac = hmac_new(keys.authentication, SHA1_BYTES)
        return set.cm != NULL and set.hmac != NULL
    set.aead = aead_new(backend, keys.encryption, srtp_key_bytes(profile))
    return set.aead != NULL


cdef void _drop_keys(KeySet* set) noexcept nogil:
    aead_free(set.aead)
    cm_free(set.cm)
    hmac_free(set.hmac)


cdef SrtpContext* _new_from_session(int profile, const SessionKeys* rtp, const SessionKeys* rtcp, int backend) noexcept nogil:
    cdef SrtpContext* ctx = <SrtpContext*>keymem_new(sizeof(SrtpContext))
    if ctx == NULL:
        return NULL
    ctx.profile = profile
    if not _set_keys(&ctx.rtp, profile, backend, rtp) or not _set_keys(&ctx.rtcp, profile, backend, rtcp):
        srtp_free(ctx)
        return NULL
    return ctx


cdef SrtpContext* srtp_new(int profile, const uint8_t* master_key, const uint8_t* master_salt, int backend) noexcept nogil:
    """Return a context with derived session keys; NULL for an unknown profile, a backend that does not run here, no memory."""
    cdef SessionKeys rtp
    cdef SessionKeys rtcp
    cdef SrtpContext* ctx = NULL
    if srtp_key_bytes(profile) < 0:
        return NULL
    memset(&rtp, 0, sizeof(rtp))
    memset(&rtcp, 0, sizeof(rtcp))
    if (_derive_set(profile, master_key, master_salt, 0, &rtp) == E_OK
            and _derive_set(profile, master_key, master_salt, LABEL_RTCP, &rtcp) == E_OK):
        ctx = _new_from_session(profile, &rtp, &rtcp, backend)
    wipe_bytes(&rtp, sizeof(rtp))
    wipe_bytes(&rtcp, sizeof(rtcp))
    return ctx


cdef void srtp_prefetch(const SrtpContext* ctx, int stage) noexcept nogil:
    if stage == 0:
        srtp_prefetch_line(ctx)
        srtp_prefetch_line(&ctx.rtp_packets)
    elif ctx.rtp.aead != NULL:
        if stage == 1:
            aead_prefetch(ctx.rtp.aead)
        else:
            aead_prefetch_schedule(ctx.rtp.aead)


cdef void srtp_free(SrtpContext* ctx) noexcept nogil:
    if ctx == NULL:
        return
    _drop_keys(&ctx.rtp)
    _drop_keys(&ctx.rtcp)
    free(ctx.source_ssrcs)
    free(ctx.source_states)
    keymem_free(ctx, sizeof(SrtpContext))


# Packets


cdef inline void _gcm_iv(const KeySet* keys, uint32_t ssrc, int64_t index, uint8_t* iv) noexcept nogil:
    """Spec: RFC 7714 sections 8.1 and 9.1: 16 zero bits, SSRC, 48-bit index (RTCP: 31 bits), XOR salt."""
    cdef int i
    put_u16(iv, 0)
    put_u32(iv + 2, ssrc)
    put_u16(iv + 6, <uint16_t>((index >> 32) & 0xffff))
    put_u32(iv + 8, <uint32_t>(index & 0xffffffffu))
    for i in range(AEAD_IV_BYTES):
        iv[i] = <uint8_t>(iv[i] ^ keys.salt[i])


cdef inline void _cm_iv(const KeySet* keys, uint32_t ssrc, int64_t index, uint8_t* iv) noexcept nogil:
    """Spec: RFC 3711 section 4.1.1: salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16."""
    cdef int i
    memset(iv, 0, CM_IV_BYTES)
    put_u32(iv + 4, ssrc)
    put_u16(iv + 8, <uint16_t>((index >> 32) & 0xffff))
    put_u32(iv + 10, <uint32_t>(index & 0xffffffffu))
    for i in range(14):
        iv[i] = <uint8_t>(iv[i] ^ keys.salt[i])


cdef int _open_gcm(KeySet* keys, uint32_t ssrc, int64_t index, uint8_t* packet, Py_ssize_t n,
                   Py_ssize_t header_bytes) noexcept nogil:
    cdef uint8_t iv[AEAD_IV_BYTES]
    cdef Py_ssize_t payload_bytes = n - header_bytes - AEAD_TAG_BYTES
    cdef uint8_t* payload = packet + header_bytes
    _gcm_iv(keys, ssrc, index, iv)
    return aead_open(keys.aead, iv, packet, header_bytes, payload, payload_bytes, payload, payload + payload_bytes)


cdef int _open_cm(KeySet* keys, uint32_t ssrc, int64_t index, uint8_t* packet, Py_ssize_t n,
                  Py_ssize_t header_bytes) noexcept nogil:
    """Check the tag over packet and rollover count (RFC 3711 section 4.2), then decrypt.

    The count takes the tag's first bytes meanwhile, so that the hash runs over one piece.
    """
    cdef uint8_t iv[CM_IV_BYTES]
    cdef uint8_t digest[SHA1_BYTES]
    cdef uint8_t tag[CM_TAG_BYTES]
    cdef Py_ssize_t body_bytes = n - CM_TAG_BYTES
    cdef int code
    memcpy(tag, packet + body_bytes, CM_TAG_BYTES)
    put_u32(packet + body_bytes, <uint32_t>((index >> 16) & 0xffffffffu))
    code = hmac_sha1(keys.hmac, packet, body_bytes + ROC_BYTES, digest)
    memcpy(packet + body_bytes, tag, ROC_BYTES)
    if code < 0:
        return code
    if not equal_bytes(digest, tag, CM_TAG_BYTES):
        return E_AUTH
    _cm_iv(keys, ssrc, index, iv)
    return cm_crypt(keys.cm, iv, packet + header_bytes, body_bytes - header_bytes, packet + header_bytes)


cdef int srtp_unprotect_rtp(SrtpContext* ctx, SrtpRxState* state, uint8_t* packet, Py_ssize_t n, Py_ssize_t header_bytes,
                            int64_t* index) noexcept nogil:
    cdef bint is_gcm = ctx.profile != SRTP_AES128_CM_SHA1_80
    cdef Py_ssize_t tag_bytes = AEAD_TAG_BYTES if is_gcm else CM_TAG_BYTES
    cdef uint32_t ssrc
    cdef int64_t guess
    cdef int code
    if header_bytes < RTP_FIXED_BYTES or n < header_bytes + tag_bytes:
        return E_SHORT
    ssrc = get_u32(packet + 8)
    guess = guess_index(state.started, state.highest, get_u16(packet + 2))
    if guess < 0:
        return E_TOO_OLD
    if guess > MAX_RTP_INDEX:
        return E_KEY_EXHAUSTED
    code = check_index(state.started, state.highest, state.window, guess)
    if code < 0:
        return code
    if is_gcm:
        code = _open_gcm(&ctx.rtp, ssrc, guess, packet, n, header_bytes)
    else:
        code = _open_cm(&ctx.rtp, ssrc, guess, packet, n, header_bytes)
    if code < 0:
        return code
    mark_index(&state.started, &state.highest, state.window, guess)
    index[0] = guess
    return <int>(n - tag_bytes)


cdef int _refuse_index(int64_t index) noexcept nogil:
    """Our own bug, whatever the peer sent: loud in the debug twin, harmless in release (the packet does not leave)."""
    if RELAY_DEBUG:
        fprintf(stderr, b"srtp: index %lld protected twice\n", <long long>index)
        abort()
    return E_INDEX_REUSED


cdef int srtp_protect_rtp(SrtpContext* ctx, SrtpTxState* state, int64_t index, uint8_t* dst, Py_ssize_t header_bytes,
                          const uint8_t* src, Py_ssize_t payload_bytes) noexcept nogil:
    cdef uint8_t iv[CM_IV_BYTES]
    cdef uint8_t digest[SHA1_BYTES]
    cdef uint8_t* payload = dst + header_bytes
    cdef Py_ssize_t n = header_bytes + payload_bytes
    cdef uint32_t ssrc
    cdef int code
    if header_bytes < RTP_FIXED_BYTES or payload_bytes < 0 or index < 0 or get_u16(dst + 2) != <uint16_t>(index & 0xffff):
        return E_INVALID
    if index > MAX_RTP_INDEX or ctx.rtp_packets > <uint64_t>MAX_RTP_INDEX:
        return E_KEY_EXHAUSTED
    if check_index(state.started, state.highest, state.window, index) < 0:
        return _refuse_index(index)
    # Spent from here on, even if the cipher fails half-way.
    mark_index(&state.started, &state.highest, state.window, index)
    ctx.rtp_packets += 1
    ssrc = get_u32(dst + 8)
    if ctx.profile != SRTP_AES128_CM_SHA1_80:
        _gcm_iv(&ctx.rtp, ssrc, index, iv)
        code = aead_seal(ctx.rtp.aead, iv, dst, header_bytes, src, payload_bytes, payload, payload + payload_bytes)
        return code if code < 0 else <int>(n + AEAD_TAG_BYTES)
    _cm_iv(&ctx.rtp, ssrc, index, iv)
    code = cm_crypt(ctx.rtp.cm, iv, src, payload_bytes, payload)
    if code < 0:
        return code
    put_u32(dst + n, <uint32_t>((index >> 16) & 0xffffffffu))
    code = hmac_sha1(ctx.rtp.hmac, dst, n + ROC_BYTES, digest)
    if code < 0:
        return code
    memcpy(dst + n, digest, CM_TAG_BYTES)
    return <int>(n + CM_TAG_BYTES)


cdef int _find_source(const SrtpContext* ctx, uint32_t ssrc) noexcept nogil:
    cdef uint32_t i
    for i in range(ctx.source_count):
        if ctx.source_ssrcs[i] == ssrc:
            return <int>i
    return -1


cdef int _add_source(SrtpContext* ctx, uint32_t ssrc) noexcept nogil:
    """Return the place of a new RTCP sender; E_LIMIT, E_MEMORY. Called for authentic packets alone."""
    cdef uint32_t capacity = ctx.source_capacity
    cdef void* bigger
    if ctx.source_count == capacity:
        if capacity >= RTCP_MAX_SOURCES:
            return E_LIMIT
        if capacity == 0:
            capacity = FIRST_SOURCES
        else:
            capacity *= 2
        bigger = realloc(ctx.source_ssrcs, capacity * sizeof(uint32_t))
        if bigger == NULL:
            return E_MEMORY
        ctx.source_ssrcs = <uint32_t*>bigger
        bigger = realloc(ctx.source_states, capacity * sizeof(SrtpRxState))
        if bigger == NULL:
            return E_MEMORY
        ctx.source_states = <SrtpRxState*>bigger
        ctx.source_capacity = capacity
    ctx.source_ssrcs[ctx.source_count] = ssrc
    memset(&ctx.source_states[ctx.source_count], 0, sizeof(SrtpRxState))
    ctx.source_count += 1
    return <int>(ctx.source_count - 1)


cdef int _open_rtcp_gcm(KeySet* keys, uint32_t ssrc, uint32_t word, uint8_t* packet, Py_ssize_t plain_bytes) noexcept nogil:
    """Spec: RFC 7714 section 9: head, text, tag, E and index word; the word is the end of the associated data."""
    cdef uint8_t iv[AEAD_IV_BYTES]
    cdef uint8_t aad[RTCP_HEAD_BYTES + RTCP_WORD_BYTES]
    cdef uint8_t tag[AEAD_TAG_BYTES]
    cdef uint8_t* text = packet + RTCP_HEAD_BYTES
    cdef Py_ssize_t text_bytes = plain_bytes - RTCP_HEAD_BYTES
    _gcm_iv(keys, ssrc, word & 0x7fffffffu, iv)
    if word >> 31:
        memcpy(aad, packet, RTCP_HEAD_BYTES)
        put_u32(aad + RTCP_HEAD_BYTES, word)
        return aead_open(keys.aead, iv, aad, sizeof(aad), text, text_bytes, text, text + text_bytes)
    # Not encrypted: the whole packet and the word are associated data, so the word moves up to where the tag stood.
    memcpy(tag, packet + plain_bytes, AEAD_TAG_BYTES)
    put_u32(packet + plain_bytes, word)
    return aead_open(keys.aead, iv, packet, plain_bytes + RTCP_WORD_BYTES, packet, 0, packet, tag)


cdef int _open_rtcp_cm(KeySet* keys, uint32_t ssrc, uint32_t word, uint8_t* packet, Py_ssize_t plain_bytes) noexcept nogil:
    """Spec: RFC 3711 section 3.4: head, text, E and index word, tag over all before it."""
    cdef uint8_t iv[CM_IV_BYTES]
    cdef uint8_t digest[SHA1_BYTES]
    cdef int code = hmac_sha1(keys.hmac, packet, plain_bytes + RTCP_WORD_BYTES, digest)
    if code < 0:
        return code
    if not equal_bytes(digest, packet + plain_bytes + RTCP_WORD_BYTES, CM_TAG_BYTES):
        return E_AUTH
    if not word >> 31:
        return E_OK
    _cm_iv(keys, ssrc, word & 0x7fffffffu, iv)
    return cm_crypt(keys.cm, iv, packet + RTCP_HEAD_BYTES, plain_bytes - RTCP_HEAD_BYTES, packet + RTCP_HEAD_BYTES)


cdef int srtp_unprotect_rtcp(SrtpContext* ctx, uint8_t* packet, Py_ssize_t n) noexcept nogil:
    """Decrypt one SRTCP packet in place; unencrypted but authentic ones (E = 0) are accepted.

    Errors: E_SHORT, E_AUTH, E_REPLAY, E_TOO_OLD; E_LIMIT when one peer uses more than RTCP_MAX_SOURCES sender SSRCs.
    """
    cdef bint is_gcm = ctx.profile != SRTP_AES128_CM_SHA1_80
    cdef Py_ssize_t plain_bytes = n - RTCP_WORD_BYTES - (AEAD_TAG_BYTES if is_gcm else CM_TAG_BYTES)
    cdef SrtpRxState* state
    cdef uint32_t ssrc, word
    cdef int64_t index
    cdef int place, code
    if plain_bytes < RTCP_HEAD_BYTES:
        return E_SHORT
    ssrc = get_u32(packet + 4)
    word = get_u32(packet + (n - RTCP_WORD_BYTES if is_gcm else plain_bytes))
    index = word & 0x7fffffffu
    place = _find_source(ctx, ssrc)
    if place >= 0:
        state = &ctx.source_states[place]
        code = check_index(state.started, state.highest, state.window, index)
        if code < 0:
            return code
    if is_gcm:
        code = _open_rtcp_gcm(&ctx.rtcp, ssrc, word, packet, plain_bytes)
    else:
        code = _open_rtcp_cm(&ctx.rtcp, ssrc, word, packet, plain_bytes)
    if code < 0:
        return code
    if place < 0:
        place = _add_source(ctx, ssrc)
        if place < 0:
            return place
    state = &ctx.source_states[place]
    mark_index(&state.started, &state.highest, state.window, index)
    return <int>plain_bytes


cdef int srtp_protect_rtcp(SrtpContext* ctx, uint8_t* packet, Py_ssize_t n, Py_ssize_t cap) noexcept nogil:
    """Encrypt one RTCP packet in place under the next SRTCP index. E_SHORT, E_NO_SPACE, E_KEY_EXHAUSTED."""
    cdef bint is_gcm = ctx.profile != SRTP_AES128_CM_SHA1_80
    cdef uint8_t iv[CM_IV_BYTES]
    cdef uint8_t aad[RTCP_HEAD_BYTES + RTCP_WORD_BYTES]
    cdef uint8_t digest[SHA1_BYTES]
    cdef uint8_t* text = packet + RTCP_HEAD_BYTES
    cdef Py_ssize_t text_bytes = n - RTCP_HEAD_BYTES
    cdef Py_ssize_t total = n + RTCP_WORD_BYTES + (AEAD_TAG_BYTES if is_gcm else CM_TAG_BYTES)
    cdef int64_t index = ctx.next_rtcp_index
    cdef uint32_t ssrc, word
    cdef int code
    if text_bytes < 0:
        return E_SHORT
    if cap < total:
        return E_NO_SPACE
    if index > MAX_RTCP_INDEX:
        return E_KEY_EXHAUSTED
    ctx.next_rtcp_index += 1
    ssrc = get_u32(packet + 4)
    word = <uint32_t>index | 0x80000000u
    if is_gcm:
        _gcm_iv(&ctx.rtcp, ssrc, index, iv)
        memcpy(aad, packet, RTCP_HEAD_BYTES)
        put_u32(aad + RTCP_HEAD_BYTES, word)
        put_u32(packet + n + AEAD_TAG_BYTES, word)
        code = aead_seal(ctx.rtcp.aead, iv, aad, sizeof(aad), text, text_bytes, text, packet + n)
        return code if code < 0 else <int>total
    _cm_iv(&ctx.rtcp, ssrc, index, iv)
    code = cm_crypt(ctx.rtcp.cm, iv, text, text_bytes, text)
    if code < 0:
        return code
    put_u32(packet + n, word)
    code = hmac_sha1(ctx.rtcp.hmac, packet, n + RTCP_WORD_BYTES, digest)
    if code < 0:
        return code
    memcpy(packet + n + RTCP_WORD_BYTES, digest, CM_TAG_BYTES)
    return <int>total


# Test faces


if <int>INDEX_WINDOW != <int>SRTP_WINDOW or sizeof(SrtpRxState) != sizeof(SrtpTxState):
    raise RuntimeError("srtp.pxd and srtpindex.pxd disagree")

DEBUG_TWIN = bool(RELAY_DEBUG)


def derive_session_keys(int profile, bytes key not None, bytes salt not None) -> dict:
    """Return the derived keys by name, `rtp_` and `rtcp_` + `encryption`, `authentication`, `salt`."""
    cdef SessionKeys keys
    if len(key) != srtp_key_bytes(profile) or len(salt) != srtp_salt_bytes(profile):
        raise ValueError("profile, key and salt do not fit")
    out = {}
    for prefix, label in (("rtp_", 0), ("rtcp_", LABEL_RTCP)):
        memset(&keys, 0, sizeof(keys))
        if _derive_set(profile, key, salt, label, &keys) < 0:
            raise MemoryError("key derivation")
        out[prefix + "encryption"] = keys.encryption[:len(key)]
        out[prefix + "authentication"] = keys.authentication[:SHA1_BYTES]
        out[prefix + "salt"] = keys.salt[:len(salt)]
    return out


@cython.final
cdef class _Stream:
    cdef SrtpRxState rx
    cdef SrtpTxState tx


@cython.final
cdef class SrtpSession:
    """Test face: one context over bytes, with the index states of its streams. Methods return bytes, or a negative code.

    `header_bytes` is what stays clear: fixed header, CSRC list and extension.
    """
    cdef SrtpContext* ctx
    cdef dict streams

    def __cinit__(self, int profile, bytes key not None, bytes salt not None, int backend=SRTP_BACKEND_AUTO,
                  bint derive=True):
        """`derive` False takes key and salt for the session keys of both RTP and RTCP, as RFC 7714's vectors do."""
        cdef SessionKeys keys
        if len(key) != srtp_key_bytes(profile) or len(salt) != srtp_salt_bytes(profile):
            raise ValueError("profile, key and salt do not fit")
        if derive:
            self.ctx = srtp_new(profile, key, salt, backend)
        else:
            memset(&keys, 0, sizeof(keys))
            memcpy(keys.encryption, <const uint8_t*>key, <size_t>len(key))
            memcpy(keys.salt, <const uint8_t*>salt, <size_t>len(salt))
            self.ctx = _new_from_session(profile, &keys, &keys, backend)
        if self.ctx == NULL:
            raise ValueError("the backend does not run here")
        self.streams = {}

    def __dealloc__(self):
        srtp_free(self.ctx)

    cdef _Stream _stream(self, bytes packet):
        if len(packet) < RTP_FIXED_BYTES:
            raise ValueError("an RTP header has 12 bytes")
        return self.streams.setdefault(packet[8:12], _Stream())

    def protect(self, bytes packet not None, index=None, Py_ssize_t header_bytes=RTP_FIXED_BYTES):
        """Protect under `index`, or under the one that the packet's seq suggests."""
        cdef _Stream s = self._stream(packet)
        cdef bytearray out = bytearray(len(packet) + SRTP_MAX_OVERHEAD)
        cdef uint8_t* dst = out
        cdef const uint8_t* src = packet
        cdef int64_t number = (guess_index(s.tx.started, s.tx.highest, get_u16(src + 2)) if index is None
                               else <int64_t>index)
        cdef int code
        if not RTP_FIXED_BYTES <= header_bytes <= len(packet):
            raise ValueError("the header ends outside the packet")
        memcpy(dst, src, <size_t>header_bytes)
        code = srtp_protect_rtp(self.ctx, &s.tx, number, dst, header_bytes, src + header_bytes, len(packet) - header_bytes)
        return code if code < 0 else bytes(out[:code])

    def unprotect(self, bytes packet not None, Py_ssize_t header_bytes=RTP_FIXED_BYTES):
        """Return the plain packet."""
        cdef _Stream s = self._stream(packet)
        cdef bytearray out = bytearray(packet)
        cdef int64_t index = 0
        cdef int code = srtp_unprotect_rtp(self.ctx, &s.rx, out, len(packet), header_bytes, &index)
        return code if code < 0 else bytes(out[:code])

    def protect_rtcp(self, bytes packet not None, spare=SRTCP_MAX_OVERHEAD):
        """Protect under the next index; `spare` bytes of room behind the packet."""
        cdef bytearray out = bytearray(packet) + bytearray(spare)
        cdef int code = srtp_protect_rtcp(self.ctx, out, len(packet), len(out))
        return code if code < 0 else bytes(out[:code])

    def unprotect_rtcp(self, bytes packet not None):
        """Return the plain packet."""
        cdef bytearray out = bytearray(packet)
        cdef int code = srtp_unprotect_rtcp(self.ctx, out, len(packet))
        return code if code < 0 else bytes(out[:code])

    def rx_state(self, uint32_t ssrc):
        """Return (started, highest index, window bytes) of a received stream, to prove what did not change."""
        cdef _Stream s = self.streams.get(ssrc.to_bytes(4, "big"))
        if s is None:
            return None
        return bool(s.rx.started), s.rx.highest, (<const uint8_t*>s.rx.window)[:WINDOW_BYTES]

    @property
    def memory(self) -> list:
        return [(<uintptr_t>self.ctx, sizeof(SrtpContext))]

    @property
    def next_rtcp_index(self) -> int:
        """Index of the next SRTCP packet sent."""
        return self.ctx.next_rtcp_index

    @next_rtcp_index.setter
    def next_rtcp_index(self, int64_t index):
        self.ctx.next_rtcp_index = index

    @property
    def rtp_packets(self) -> int:
        """RTP packets protected so far under this key."""
        return self.ctx.rtp_packets

    @rtp_packets.setter
    def rtp_packets(self, uint64_t packets):
        self.ctx.rtp_packets = packets

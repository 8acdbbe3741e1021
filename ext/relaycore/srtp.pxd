"""SRTP and SRTCP (RFC 3711, RFC 7714): one `SrtpContext` per transport and direction, one index state per SSRC."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t

cdef enum SrtpProfile:                    # values of the DTLS use_srtp registry (RFC 5764, 7714)
    SRTP_AES128_CM_SHA1_80 = 0x0001
    SRTP_AEAD_AES_128_GCM = 0x0007
    SRTP_AEAD_AES_256_GCM = 0x0008

cdef enum SrtpBackend:
    SRTP_BACKEND_AUTO = 0                 # ipsec-mb where the CPU has AES-NI, else OpenSSL
    SRTP_BACKEND_IPSEC_MB = 1
    SRTP_BACKEND_OPENSSL = 2

cdef enum:
    SRTP_MAX_OVERHEAD = 16                # bytes protect may add to RTP
    SRTCP_MAX_OVERHEAD = 20               # tag + E/index word
    SRTP_WINDOW = 1024                    # packets, power of two

cdef struct SrtpContext              # owned by whoever called srtp_new; freed by srtp_free

# Receive index state of one SSRC. Zero-initialise; owned by the stream.
ctypedef struct SrtpRxState:
    int64_t highest                       # highest authenticated 48-bit index (roc << 16 | seq), valid if started
    int started
    uint64_t window[16]                   # SRTP_WINDOW bits, bit (index mod SRTP_WINDOW)

# Send index state of one SSRC: every index is protected at most once (a reused GCM index gives the key away).
ctypedef struct SrtpTxState:
    int64_t highest
    int started
    uint64_t window[16]

cdef int srtp_key_bytes(int profile) noexcept nogil          # 16, 16, 32; E_UNSUPPORTED
cdef int srtp_salt_bytes(int profile) noexcept nogil         # 14, 12, 12
cdef SrtpContext* srtp_new(int profile, const uint8_t* master_key, const uint8_t* master_salt, int backend) noexcept nogil   # NULL: unsupported or no memory
# Ask the cache for what protecting the next packet reads, one dereference further at each of three stages.
cdef void srtp_prefetch(const SrtpContext* ctx, int stage) noexcept nogil
cdef void srtp_free(SrtpContext* ctx) noexcept nogil         # wipes keys
cdef const char* srtp_backend_name(int backend) noexcept nogil   # what AUTO resolves to: "ipsec-mb (avx512)" ...

# Decrypts in place. header_bytes = fixed header + CSRC + extension (parse_rtp's payload_offset). Returns the plaintext
# packet's length; *index receives the 48-bit index. E_SHORT, E_AUTH, E_REPLAY, E_TOO_OLD; state untouched unless OK.
cdef int srtp_unprotect_rtp(SrtpContext* ctx, SrtpRxState* state, uint8_t* packet, Py_ssize_t n, Py_ssize_t header_bytes, int64_t* index) noexcept nogil

# dst[0:header_bytes] already holds the outgoing header (its seq = index & 0xffff); payload is read from src (may be dst + header_bytes).
# Writes ciphertext and tag behind the header; dst needs header + payload + SRTP_MAX_OVERHEAD. Returns total bytes.
# E_INDEX_REUSED when this index was protected before or is left of the window (debug twin aborts).
cdef int srtp_protect_rtp(SrtpContext* ctx, SrtpTxState* state, int64_t index, uint8_t* dst, Py_ssize_t header_bytes, const uint8_t* src, Py_ssize_t payload_bytes) noexcept nogil

# SRTCP: index and replay window live in the context. In place; cap >= n + SRTCP_MAX_OVERHEAD. Return new length.
cdef int srtp_unprotect_rtcp(SrtpContext* ctx, uint8_t* packet, Py_ssize_t n) noexcept nogil
cdef int srtp_protect_rtcp(SrtpContext* ctx, uint8_t* packet, Py_ssize_t n, Py_ssize_t cap) noexcept nogil

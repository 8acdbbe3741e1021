"""Ciphers of SRTP behind one interface: AES-GCM (RFC 7714), AES-CM and HMAC-SHA1 (RFC 3711), by ipsec-mb or OpenSSL.

A key object belongs to one thread at a time (OpenSSL contexts are mutable); it is freed, and wiped, by its `_free`.
"""
from libc.stdint cimport uint8_t

cdef enum CipherBackend:                  # same numbers as srtp.SrtpBackend
    CIPHER_AUTO = 0
    CIPHER_IPSEC_MB = 1
    CIPHER_OPENSSL = 2

cdef enum:
    AEAD_IV_BYTES = 12
    AEAD_TAG_BYTES = 16
    CM_IV_BYTES = 16
    SHA1_BYTES = 20

cdef struct AeadKey                       # AES-GCM under one key
cdef struct CmKey                         # AES-CM-128 under one key
cdef struct HmacKey                       # HMAC-SHA1 under one key

# What `backend` means on this machine: CIPHER_IPSEC_MB or CIPHER_OPENSSL; E_UNSUPPORTED when it does not run here.
cdef int cipher_resolve(int backend) noexcept nogil
cdef const char* cipher_name(int backend) noexcept nogil        # "ipsec-mb (avx512)", "openssl", "unavailable"

# The constructors take a resolved or AUTO backend and return NULL when it is unsupported or memory is short.
cdef AeadKey* aead_new(int backend, const uint8_t* key, int key_bytes) noexcept nogil       # 16 or 32 bytes
cdef void aead_free(AeadKey* k) noexcept nogil
# Ask the cache for the key itself, and once that is there for what aead_seal reads through it.
cdef void aead_prefetch(const AeadKey* k) noexcept nogil
cdef void aead_prefetch_schedule(const AeadKey* k) noexcept nogil
# n bytes of src to dst (equal or disjoint) and a 16-byte tag. E_OK; E_MEMORY when the library fails.
cdef int aead_seal(AeadKey* k, const uint8_t* iv, const uint8_t* aad, Py_ssize_t aad_bytes, const uint8_t* src,
                   Py_ssize_t n, uint8_t* dst, uint8_t* tag) noexcept nogil
# E_OK or E_AUTH; after E_AUTH dst[0:n] is zero, so that nothing unverified can be used.
cdef int aead_open(AeadKey* k, const uint8_t* iv, const uint8_t* aad, Py_ssize_t aad_bytes, const uint8_t* src,
                   Py_ssize_t n, uint8_t* dst, const uint8_t* tag) noexcept nogil

cdef CmKey* cm_new(int backend, const uint8_t* key) noexcept nogil                           # 16 bytes
cdef void cm_free(CmKey* k) noexcept nogil
# XORs the keystream that starts at counter block iv onto src, to dst (equal or disjoint). E_OK, E_MEMORY.
cdef int cm_crypt(CmKey* k, const uint8_t* iv, const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil

cdef HmacKey* hmac_new(const uint8_t* key, Py_ssize_t key_bytes) noexcept nogil
cdef void hmac_free(HmacKey* k) noexcept nogil
cdef int hmac_sha1(HmacKey* k, const uint8_t* data, Py_ssize_t n, uint8_t* digest) noexcept nogil    # 20 bytes; E_OK, E_MEMORY

# One-off AES-CM for key derivation, key of 16 or 32 bytes: n keystream bytes from counter block iv. E_OK, E_UNSUPPORTED, E_MEMORY.
cdef int cm_keystream(const uint8_t* key, int key_bytes, const uint8_t* iv, uint8_t* dst, Py_ssize_t n) noexcept nogil
cdef bint equal_bytes(const uint8_t* a, const uint8_t* b, Py_ssize_t n) noexcept nogil      # constant time
cdef void wipe_bytes(void* p, Py_ssize_t n) noexcept nogil

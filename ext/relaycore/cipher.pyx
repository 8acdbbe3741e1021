"""AES-GCM, AES-CM and HMAC-SHA1 for SRTP by two backends, chosen by the CPU at run time.

Spec: RFC 7714 (GCM as SRTP uses it), RFC 3711 section 4.1.1 (AES-CM), RFC 2104 (HMAC).
- GCM under ipsec-mb is its single call from source to destination: it reads only the key and a context on our stack, so
  one manager, never written after setup, serves all threads.
- AES-CM under ipsec-mb is its synchronous cipher burst, which does write to its manager (about 200 kB): one per thread,
  made at the first use and freed when the thread ends. Threads that only ever see GCM never make one.
- HMAC-SHA1 is OpenSSL's under both backends: ipsec-mb's hash lanes pay only when filled; a single 1,204-byte packet took
  2,650 ns through its 16-lane scheduler against 800 ns here (AVX-512 machine).
Does not know packets, indexes or key derivation; see `srtp`.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from relaycore.errs cimport E_OK, E_AUTH, E_MEMORY, E_UNSUPPORTED

cdef extern from *:
    """
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <openssl/crypto.h>

    #if defined(__x86_64__) && defined(__has_include)
    #if __has_include(<intel-ipsec-mb.h>)
    #define RELAY_IPSEC_MB 1
    #endif
    #endif

    #ifdef RELAY_IPSEC_MB
    #include <intel-ipsec-mb.h>

    typedef struct { uint32_t enc[4 * 15]; uint32_t dec[4 * 15]; } relay_cm_key;   /* IMB_AES_KEYEXP_128 writes both */

    static pthread_once_t relay_imb_once = PTHREAD_ONCE_INIT;
    static pthread_key_t relay_imb_cleanup;
    static IMB_MGR *relay_imb_shared;              /* read-only after setup; NULL = this CPU cannot */
    static IMB_ARCH relay_imb_arch = IMB_ARCH_NONE;
    static __thread IMB_MGR *relay_imb_own;
    static int relay_imb_managers;                 /* living ones of threads; atomic */

    static void relay_imb_drop(void *mgr) {
        free_mb_mgr((IMB_MGR *)mgr);
        __atomic_sub_fetch(&relay_imb_managers, 1, __ATOMIC_RELAXED);
    }
    static int relay_imb_count(void) { return __atomic_load_n(&relay_imb_managers, __ATOMIC_RELAXED); }

    static void relay_imb_setup(void) {
        IMB_MGR *mgr = alloc_mb_mgr(0);
        if (mgr == NULL) return;
        init_mb_mgr_auto(mgr, &relay_imb_arch);
        /* IMB_ARCH_SSE is the first that needs AES-NI and PCLMULQDQ; below it the library emulates AES in plain C. */
        if (imb_get_errno(mgr) != 0 || relay_imb_arch < IMB_ARCH_SSE
            || pthread_key_create(&relay_imb_cleanup, relay_imb_drop) != 0) {
            free_mb_mgr(mgr);
            return;
        }
        relay_imb_shared = mgr;
    }

    static int relay_imb_ready(void) {
        pthread_once(&relay_imb_once, relay_imb_setup);
        return relay_imb_shared != NULL;
    }

    static const char *relay_imb_name(void) {
        switch (relay_imb_arch) {
        case IMB_ARCH_SSE: return "ipsec-mb (sse)";
        case IMB_ARCH_AVX: return "ipsec-mb (avx)";
        case IMB_ARCH_AVX2: return "ipsec-mb (avx2)";
        case IMB_ARCH_AVX512: return "ipsec-mb (avx512)";
        default: return "ipsec-mb";
        }
    }

    static IMB_MGR *relay_imb_mine(void) {
        IMB_MGR *mgr = relay_imb_own;
        if (mgr != NULL) return mgr;
        mgr = alloc_mb_mgr(0);
        if (mgr == NULL) return NULL;
        init_mb_mgr_auto(mgr, NULL);
        if (pthread_setspecific(relay_imb_cleanup, mgr) != 0) { free_mb_mgr(mgr); return NULL; }
        relay_imb_own = mgr;
        __atomic_add_fetch(&relay_imb_managers, 1, __ATOMIC_RELAXED);
        return mgr;
    }

    static size_t relay_gcm_key_bytes(void) { return sizeof(struct gcm_key_data); }
    static size_t relay_cm_key_bytes(void) { return sizeof(relay_cm_key); }

    static void relay_gcm_expand(void *k, const uint8_t *key, int key_bytes) {
        if (key_bytes == 16) IMB_AES128_GCM_PRE(relay_imb_shared, key, (struct gcm_key_data *)k);
        else IMB_AES256_GCM_PRE(relay_imb_shared, key, (struct gcm_key_data *)k);
    }

    static void relay_gcm_seal(const void *k, int key_bytes, const uint8_t *iv, const uint8_t *aad, size_t aad_bytes,
                               const uint8_t *src, size_t n, uint8_t *dst, uint8_t *tag) {
        struct gcm_context_data c;
        const struct gcm_key_data *g = (const struct gcm_key_data *)k;
        if (key_bytes == 16) IMB_AES128_GCM_ENC(relay_imb_shared, g, &c, dst, src, n, iv, aad, aad_bytes, tag, 16);
        else IMB_AES256_GCM_ENC(relay_imb_shared, g, &c, dst, src, n, iv, aad, aad_bytes, tag, 16);
    }

    static void relay_gcm_open(const void *k, int key_bytes, const uint8_t *iv, const uint8_t *aad, size_t aad_bytes,
                               const uint8_t *src, size_t n, uint8_t *dst, uint8_t *tag) {
        struct gcm_context_data c;
        const struct gcm_key_data *g = (const struct gcm_key_data *)k;
        if (key_bytes == 16) IMB_AES128_GCM_DEC(relay_imb_shared, g, &c, dst, src, n, iv, aad, aad_bytes, tag, 16);
        else IMB_AES256_GCM_DEC(relay_imb_shared, g, &c, dst, src, n, iv, aad, aad_bytes, tag, 16);
    }

    static void relay_cm_expand(void *k, const uint8_t *key) {
        IMB_AES_KEYEXP_128(relay_imb_shared, key, ((relay_cm_key *)k)->enc, ((relay_cm_key *)k)->dec);
    }

    static int relay_cm_crypt(const void *k, const uint8_t *iv, const uint8_t *src, size_t n, uint8_t *dst) {
        IMB_MGR *mgr = relay_imb_mine();
        IMB_JOB job;
        if (mgr == NULL) return 0;
        memset(&job, 0, sizeof job);
        job.enc_keys = ((const relay_cm_key *)k)->enc;
        job.dec_keys = job.enc_keys;                     /* counter mode only ever encrypts */
        job.key_len_in_bytes = 16;
        job.src = src;
        job.dst = dst;
        job.msg_len_to_cipher_in_bytes = n;
        job.iv = iv;
        job.iv_len_in_bytes = 16;
        job.cipher_mode = IMB_CIPHER_CNTR;
        job.cipher_direction = IMB_DIR_ENCRYPT;
        return IMB_SUBMIT_CIPHER_BURST(mgr, &job, 1, IMB_CIPHER_CNTR, IMB_DIR_ENCRYPT, IMB_KEY_128_BYTES) == 1;
    }
    #else
    static int relay_imb_ready(void) { return 0; }
    static int relay_imb_count(void) { return 0; }
    static const char *relay_imb_name(void) { return "unavailable"; }
    static size_t relay_gcm_key_bytes(void) { return 64; }
    static size_t relay_cm_key_bytes(void) { return 64; }
    /* Never reached: no key is made for a backend that is not ready. */
    static void relay_gcm_expand(void *k, const uint8_t *key, int b) { (void)k; (void)key; (void)b; abort(); }
    static void relay_gcm_seal(const void *k, int b, const uint8_t *iv, const uint8_t *aad, size_t an, const uint8_t *src,
                               size_t n, uint8_t *dst, uint8_t *tag) {
        (void)k; (void)b; (void)iv; (void)aad; (void)an; (void)src; (void)n; (void)dst; (void)tag; abort();
    }
    #define relay_gcm_open relay_gcm_seal
    static void relay_cm_expand(void *k, const uint8_t *key) { (void)k; (void)key; abort(); }
    static int relay_cm_crypt(const void *k, const uint8_t *iv, const uint8_t *src, size_t n, uint8_t *dst) {
        (void)k; (void)iv; (void)src; (void)n; (void)dst; abort();
    }
    #endif

    /* aligned_alloc wants a multiple of the alignment. */
    static void *relay_key_new(size_t n) { return aligned_alloc(64, (n + 63) & ~(size_t)63); }
    static void relay_key_free(void *k, size_t n) { if (k != NULL) { OPENSSL_cleanse(k, n); free(k); } }
    """
    int relay_imb_ready() noexcept nogil
    int relay_imb_count() noexcept nogil
    const char* relay_imb_name() noexcept nogil
    size_t relay_gcm_key_bytes() noexcept nogil
    size_t relay_cm_key_bytes() noexcept nogil
    void relay_gcm_expand(void* k, const uint8_t* key, int key_bytes) noexcept nogil
    void relay_gcm_seal(const void* k, int key_bytes, const uint8_t* iv, const uint8_t* aad, size_t aad_bytes,
                        const uint8_t* src, size_t n, uint8_t* dst, uint8_t* tag) noexcept nogil
    void relay_gcm_open(const void* k, int key_bytes, const uint8_t* iv, const uint8_t* aad, size_t aad_bytes,
                        const uint8_t* src, size_t n, uint8_t* dst, uint8_t* tag) noexcept nogil
    void relay_cm_expand(void* k, const uint8_t* key) noexcept nogil
    int relay_cm_crypt(const void* k, const uint8_t* iv, const uint8_t* src, size_t n, uint8_t* dst) noexcept nogil
    void* relay_key_new(size_t n) noexcept nogil
    void relay_key_free(void* k, size_t n) noexcept nogil

cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_cleanse(void* p, size_t n) noexcept
    int CRYPTO_memcmp(const void* a, const void* b, size_t n) noexcept

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MAC:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass
    ctypedef struct OSSL_PARAM:
        pass
    int EVP_CTRL_AEAD_GET_TAG
    int EVP_CTRL_AEAD_SET_TAG
    const EVP_CIPHER* EVP_aes_128_gcm() noexcept
    const EVP_CIPHER* EVP_aes_256_gcm() noexcept
    const EVP_CIPHER* EVP_aes_128_ctr() noexcept
    const EVP_CIPHER* EVP_aes_256_ctr() noexcept
    EVP_CIPHER_CTX* EVP_CIPHER_CTX_new() noexcept
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX* c) noexcept
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX* c, int kind, int arg, void* p) noexcept
    int EVP_CipherInit_ex2(EVP_CIPHER_CTX* c, const EVP_CIPHER* cipher, const uint8_t* key, const uint8_t* iv, int enc,
                           const OSSL_PARAM* params) noexcept
    int EVP_CipherUpdate(EVP_CIPHER_CTX* c, uint8_t* dst, int* written, const uint8_t* src, int n) noexcept
    int EVP_CipherFinal_ex(EVP_CIPHER_CTX* c, uint8_t* dst, int* written) noexcept
    EVP_MAC* EVP_MAC_fetch(void* library, const char* name, const char* properties) noexcept
    void EVP_MAC_free(EVP_MAC* mac) noexcept
    EVP_MAC_CTX* EVP_MAC_CTX_new(EVP_MAC* mac) noexcept
    void EVP_MAC_CTX_free(EVP_MAC_CTX* c) noexcept
    int EVP_MAC_init(EVP_MAC_CTX* c, const uint8_t* key, size_t n, const OSSL_PARAM* params) noexcept
    int EVP_MAC_update(EVP_MAC_CTX* c, const uint8_t* data, size_t n) noexcept
    int EVP_MAC_final(EVP_MAC_CTX* c, uint8_t* digest, size_t* written, size_t capacity) noexcept

cdef extern from "openssl/params.h" nogil:
    OSSL_PARAM OSSL_PARAM_construct_utf8_string(const char* key, char* value, size_t n) noexcept
    OSSL_PARAM OSSL_PARAM_construct_end() noexcept

cdef extern from *:
    """
    static inline void relay_prefetch(const void *p) { __builtin_prefetch(p); }
    """
    void relay_prefetch(const void* p) noexcept nogil

cdef enum:
    CACHE_LINE_BYTES = 64
    AEAD_HOT_LINES = 17            # round keys and the hash powers that a packet of 1,200 bytes uses

cdef struct AeadKey:
    int key_bytes
    void* expanded                 # owned; ipsec-mb's key schedule and hash powers, NULL under OpenSSL
    EVP_CIPHER_CTX* evp            # owned; NULL under ipsec-mb

cdef struct CmKey:
    void* expanded                 # owned; NULL under OpenSSL
    EVP_CIPHER_CTX* evp            # owned; NULL under ipsec-mb

cdef struct HmacKey:
    EVP_MAC_CTX* evp               # owned; holds the key


cdef int cipher_resolve(int backend) noexcept nogil:
    if backend == CIPHER_OPENSSL:
        return CIPHER_OPENSSL
    if backend != CIPHER_AUTO and backend != CIPHER_IPSEC_MB:
        return E_UNSUPPORTED
    if relay_imb_ready():
        return CIPHER_IPSEC_MB
    if backend == CIPHER_AUTO:
        return CIPHER_OPENSSL
    return E_UNSUPPORTED


cdef const char* cipher_name(int backend) noexcept nogil:
    cdef int resolved = cipher_resolve(backend)
    if resolved == CIPHER_IPSEC_MB:
        return relay_imb_name()
    return b"openssl" if resolved == CIPHER_OPENSSL else b"unavailable"


cdef bint equal_bytes(const uint8_t* a, const uint8_t* b, Py_ssize_t n) noexcept nogil:
    return CRYPTO_memcmp(a, b, <size_t>n) == 0


cdef void wipe_bytes(void* p, Py_ssize_t n) noexcept nogil:
    OPENSSL_cleanse(p, <size_t>n)


cdef EVP_CIPHER_CTX* _evp_new(const EVP_CIPHER* cipher, const uint8_t* key) noexcept nogil:
    cdef EVP_CIPHER_CTX* c = EVP_CIPHER_CTX_new()
    if c != NULL and EVP_CipherInit_ex2(c, cipher, key, NULL, 1, NULL) != 1:
        EVP_CIPHER_CTX_free(c)
        return NULL
    return c


cdef AeadKey* aead_new(int backend, const uint8_t* key, int key_bytes) noexcept nogil:
    cdef int resolved = cipher_resolve(backend)
    cdef AeadKey* k
    if resolved < 0 or (key_bytes != 16 and key_bytes != 32):
        return NULL
    k = <AeadKey*>calloc(1, sizeof(AeadKey))
    if k == NULL:
        return NULL
    k.key_bytes = key_bytes
    if resolved == CIPHER_IPSEC_MB:
        k.expanded = relay_key_new(relay_gcm_key_bytes())
        if k.expanded != NULL:
            relay_gcm_expand(k.expanded, key, key_bytes)
            return k
    else:
        k.evp = _evp_new(EVP_aes_128_gcm() if key_bytes == 16 else EVP_aes_256_gcm(), key)
        if k.evp != NULL:
            return k
    free(k)
    return NULL


cdef void aead_free(AeadKey* k) noexcept nogil:
    if k != NULL:
        relay_key_free(k.expanded, relay_gcm_key_bytes())
        EVP_CIPHER_CTX_free(k.evp)
        free(k)


cdef bint _evp_feed(EVP_CIPHER_CTX* c, const uint8_t* iv, const uint8_t* aad, Py_ssize_t aad_bytes, const uint8_t* src,
                    Py_ssize_t n, uint8_t* dst, int encrypt) noexcept nogil:
    """Start a GCM message and pass its AAD and text; the key stays from `_evp_new`, in either direction."""
    cdef int written = 0
    if EVP_CipherInit_ex2(c, NULL, NULL, iv, encrypt, NULL) != 1:
        return False
    if aad_bytes > 0 and EVP_CipherUpdate(c, NULL, &written, aad, <int>aad_bytes) != 1:
        return False
    return n == 0 or EVP_CipherUpdate(c, dst, &written, src, <int>n) == 1


cdef void aead_prefetch(const AeadKey* k) noexcept nogil:
    relay_prefetch(k)


cdef void aead_prefetch_schedule(const AeadKey* k) noexcept nogil:
    cdef Py_ssize_t i
    if k.expanded == NULL:
        return
    for i in range(AEAD_HOT_LINES):
        relay_prefetch(<const uint8_t*>k.expanded + i * CACHE_LINE_BYTES)


cdef int aead_seal(AeadKey* k, const uint8_t* iv, const uint8_t* aad, Py_ssize_t aad_bytes, const uint8_t* src,
                   Py_ssize_t n, uint8_t* dst, uint8_t* tag) noexcept nogil:
    cdef int written = 0
    cdef uint8_t rest[16]
    if k.expanded != NULL:
        relay_gcm_seal(k.expanded, k.key_bytes, iv, aad, <size_t>aad_bytes, src, <size_t>n, dst, tag)
        return E_OK
    if (not _evp_feed(k.evp, iv, aad, aad_bytes, src, n, dst, 1)
            or EVP_CipherFinal_ex(k.evp, rest, &written) != 1
            or EVP_CIPHER_CTX_ctrl(k.evp, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, tag) != 1):
        return E_MEMORY
    return E_OK


cdef int aead_open(AeadKey* k, const uint8_t* iv, const uint8_t* aad, Py_ssize_t aad_bytes, const uint8_t* src,
                   Py_ssize_t n, uint8_t* dst, const uint8_t* tag) noexcept nogil:
    cdef int written = 0
    cdef uint8_t computed[AEAD_TAG_BYTES]
    cdef uint8_t rest[16]
    if k.expanded != NULL:
        relay_gcm_open(k.expanded, k.key_bytes, iv, aad, <size_t>aad_bytes, src, <size_t>n, dst, computed)
        if CRYPTO_memcmp(computed, tag, AEAD_TAG_BYTES) == 0:
            return E_OK
    elif (_evp_feed(k.evp, iv, aad, aad_bytes, src, n, dst, 0)
            # OpenSSL's control takes a non-const pointer for both directions; it only reads for SET_TAG.
            and EVP_CIPHER_CTX_ctrl(k.evp, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_BYTES, <void*>tag) == 1
            and EVP_CipherFinal_ex(k.evp, rest, &written) == 1):
        return E_OK
    if n > 0:
        memset(dst, 0, <size_t>n)
    return E_AUTH


cdef CmKey* cm_new(int backend, const uint8_t* key) noexcept nogil:
    cdef int resolved = cipher_resolve(backend)
    cdef CmKey* k
    if resolved < 0:
        return NULL
    k = <CmKey*>calloc(1, sizeof(CmKey))
    if k == NULL:
        return NULL
    if resolved == CIPHER_IPSEC_MB:
        k.expanded = relay_key_new(relay_cm_key_bytes())
        if k.expanded != NULL:
            relay_cm_expand(k.expanded, key)
            return k
    else:
        k.evp = _evp_new(EVP_aes_128_ctr(), key)
        if k.evp != NULL:
            return k
    free(k)
    return NULL


cdef void cm_free(CmKey* k) noexcept nogil:
    if k != NULL:
        relay_key_free(k.expanded, relay_cm_key_bytes())
        EVP_CIPHER_CTX_free(k.evp)
        free(k)


cdef int cm_crypt(CmKey* k, const uint8_t* iv, const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil:
    cdef int written = 0
    if n == 0:
        return E_OK
    if k.expanded != NULL:
        return E_OK if relay_cm_crypt(k.expanded, iv, src, <size_t>n, dst) else E_MEMORY
    if (EVP_CipherInit_ex2(k.evp, NULL, NULL, iv, 1, NULL) != 1
            or EVP_CipherUpdate(k.evp, dst, &written, src, <int>n) != 1):
        return E_MEMORY
    return E_OK


cdef int cm_keystream(const uint8_t* key, int key_bytes, const uint8_t* iv, uint8_t* dst, Py_ssize_t n) noexcept nogil:
    cdef EVP_CIPHER_CTX* c
    cdef int written = 0
    cdef bint done
    if key_bytes != 16 and key_bytes != 32:
        return E_UNSUPPORTED
    c = _evp_new(EVP_aes_128_ctr() if key_bytes == 16 else EVP_aes_256_ctr(), key)
    if c == NULL:
        return E_MEMORY
    memset(dst, 0, <size_t>n)
    done = EVP_CipherInit_ex2(c, NULL, NULL, iv, 1, NULL) == 1 and EVP_CipherUpdate(c, dst, &written, dst, <int>n) == 1
    EVP_CIPHER_CTX_free(c)
    return E_OK if done else E_MEMORY


cdef HmacKey* hmac_new(const uint8_t* key, Py_ssize_t key_bytes) noexcept nogil:
    cdef OSSL_PARAM params[2]
    cdef HmacKey* k = <HmacKey*>calloc(1, sizeof(HmacKey))
    cdef EVP_MAC* mac
    if k == NULL:
        return NULL
    mac = EVP_MAC_fetch(NULL, b"HMAC", NULL)
    if mac != NULL:
        k.evp = EVP_MAC_CTX_new(mac)           # Holds its own reference to mac.
        EVP_MAC_free(mac)
    params[0] = OSSL_PARAM_construct_utf8_string(b"digest", <char*>b"SHA1", 0)
    params[1] = OSSL_PARAM_construct_end()
    if k.evp == NULL or EVP_MAC_init(k.evp, key, <size_t>key_bytes, params) != 1:
        hmac_free(k)
        return NULL
    return k


cdef void hmac_free(HmacKey* k) noexcept nogil:
    if k != NULL:
        EVP_MAC_CTX_free(k.evp)
        free(k)


cdef int hmac_sha1(HmacKey* k, const uint8_t* data, Py_ssize_t n, uint8_t* digest) noexcept nogil:
    cdef size_t written = 0
    if (EVP_MAC_init(k.evp, NULL, 0, NULL) != 1 or EVP_MAC_update(k.evp, data, <size_t>n) != 1
            or EVP_MAC_final(k.evp, digest, &written, SHA1_BYTES) != 1):
        return E_MEMORY
    return E_OK


def backend_name(int backend=CIPHER_AUTO) -> str:
    """Return what `backend` runs as here, e.g. "ipsec-mb (avx512)"; "unavailable" if it cannot."""
    return cipher_name(backend).decode()


def thread_managers() -> int:
    """Return how many threads hold an ipsec-mb manager of their own."""
    return relay_imb_count()


@cython.final
cdef class Aead:
    """Test face: AES-GCM under one key. Raises ValueError when the key or the backend cannot be used."""
    cdef AeadKey* key

    def __cinit__(self, bytes key not None, int backend=CIPHER_AUTO):
        self.key = aead_new(backend, key, <int>len(key))
        if self.key == NULL:
            raise ValueError("no such AES-GCM key or backend")

    def __dealloc__(self):
        aead_free(self.key)

    def seal(self, bytes iv not None, bytes aad not None, bytes text not None) -> bytes:
        """Return ciphertext and tag."""
        cdef bytearray out = bytearray(len(text) + AEAD_TAG_BYTES)
        cdef uint8_t* dst = out
        if len(iv) != AEAD_IV_BYTES:
            raise ValueError("the IV has 12 bytes")
        if aead_seal(self.key, iv, aad, len(aad), text, len(text), dst, dst + len(text)) < 0:
            raise MemoryError("AES-GCM")
        return bytes(out)

    def open(self, bytes iv not None, bytes aad not None, bytes sealed not None):
        """Return the plain text, or None when the tag is wrong."""
        cdef Py_ssize_t n = len(sealed) - AEAD_TAG_BYTES
        cdef bytearray out
        cdef const uint8_t* src = sealed
        if len(iv) != AEAD_IV_BYTES or n < 0:
            raise ValueError("the IV has 12 bytes, the tag 16")
        out = bytearray(n)
        if aead_open(self.key, iv, aad, len(aad), src, n, out, src + n) < 0:
            if any(out):
                raise RuntimeError("unverified bytes were left behind")
            return None
        return bytes(out)


@cython.final
cdef class CounterMode:
    """Test face: AES-CM-128 under one key."""
    cdef CmKey* key

    def __cinit__(self, bytes key not None, int backend=CIPHER_AUTO):
        self.key = cm_new(backend, key) if len(key) == 16 else NULL
        if self.key == NULL:
            raise ValueError("no such AES-CM key or backend")

    def __dealloc__(self):
        cm_free(self.key)

    def crypt(self, bytes iv not None, bytes text not None) -> bytes:
        """Return text XOR keystream from counter block iv."""
        cdef bytearray out = bytearray(len(text))
        if len(iv) != CM_IV_BYTES:
            raise ValueError("the counter block has 16 bytes")
        if cm_crypt(self.key, iv, text, len(text), out) < 0:
            raise MemoryError("AES-CM")
        return bytes(out)


def keystream(bytes key not None, bytes iv not None, Py_ssize_t n) -> bytes:
    """Return n bytes of AES-CM keystream (16- or 32-byte key): the primitive of SRTP's key derivation."""
    cdef bytearray out = bytearray(n)
    if len(iv) != CM_IV_BYTES or cm_keystream(key, <int>len(key), iv, out, n) < 0:
        raise ValueError("key of 16 or 32 bytes, counter block of 16")
    return bytes(out)


def sha1_tag(bytes key not None, bytes data not None) -> bytes:
    """Return HMAC-SHA1 of data, twice computed with one key object to prove that the key survives a message."""
    cdef uint8_t digest[SHA1_BYTES]
    cdef HmacKey* k = hmac_new(key, len(key))
    cdef int first, code
    if k == NULL:
        raise MemoryError("HMAC")
    first = hmac_sha1(k, b"x", 1, digest)
    code = hmac_sha1(k, data, len(data), digest)
    hmac_free(k)
    if first < 0 or code < 0:
        raise MemoryError("HMAC")
    return digest[:SHA1_BYTES]

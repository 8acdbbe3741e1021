"""AES-GCM, AES-CM and HMAC-SHA1 for SRTP by two backends, chosen by the CPU at run time.

Spec: RFC 7714 (GCM as SRTP uses it), RFC 3711 section 4.1.1 (AES-CM), RFC 2104 (HMAC).
- GCM under ipsec-mb is its single call from source to destination: it reads only the key and a context on our stack, so
  one manager, never written after setup, serves all threads.
- AES-CM under ipsec-mb is its synchronous cipher burst, which does write to its manager (about 200 kB): one per thread,
  made at the first use and freed when the thread ends. Threads that only ever see GCM never make one.
- HMAC-SHA1 is OpenSSL's hash under both backends: ipsec-mb's hash lanes pay only when filled; a single 1,204-byte packet took
  2,650 ns through its 16-lane scheduler against 800 ns here (AVX-512 machine). The hash is called by its old interface, because
  its state, which is the key, then lies where we want it.
- Keys and schedules lie in keymem: no dump has them. Those of OpenSSL's AES (no AES-NI) lie on its own heap, which it wipes.
Does not know packets, indexes or key derivation; see `srtp`.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uintptr_t
from libc.string cimport memcpy, memset
from relaycore.errs cimport E_OK, E_AUTH, E_MEMORY, E_UNSUPPORTED
from relaycore.keymem cimport keymem_free, keymem_new

cdef extern from *:
    """
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #define OPENSSL_SUPPRESS_DEPRECATED
    #include <openssl/crypto.h>
    #include <openssl/sha.h>

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

cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_cleanse(void* p, size_t n) noexcept
    int CRYPTO_memcmp(const void* a, const void* b, size_t n) noexcept

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
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

cdef extern from "openssl/sha.h" nogil:
    ctypedef struct SHA_CTX:
        pass
    int SHA1_Init(SHA_CTX* c) noexcept
    int SHA1_Update(SHA_CTX* c, const void* data, size_t n) noexcept
    int SHA1_Final(uint8_t* digest, SHA_CTX* c) noexcept

cdef extern from *:
    """
    static inline void relay_prefetch(const void *p) { __builtin_prefetch(p); }
    """
    void relay_prefetch(const void* p) noexcept nogil

cdef enum:
    CACHE_LINE_BYTES = 64
    SHA1_BLOCK_BYTES = 64
    AEAD_HOT_LINES = 17            # round keys and the hash powers that a packet of 1,200 bytes uses

cdef struct AeadKey:
    int key_bytes
    void* expanded                 # owned; ipsec-mb's key schedule and hash powers, NULL under OpenSSL
    EVP_CIPHER_CTX* evp            # owned; NULL under ipsec-mb

cdef struct CmKey:
    void* expanded                 # owned; NULL under OpenSSL
    EVP_CIPHER_CTX* evp            # owned; NULL under ipsec-mb

cdef struct HmacKey:
    SHA_CTX inner                  # states behind the padded key (RFC 2104 section 4)
    SHA_CTX outer


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
    k = <AeadKey*>keymem_new(sizeof(AeadKey))
    if k == NULL:
        return NULL
    k.key_bytes = key_bytes
    if resolved == CIPHER_IPSEC_MB:
        k.expanded = keymem_new(relay_gcm_key_bytes())
        if k.expanded != NULL:
            relay_gcm_expand(k.expanded, key, key_bytes)
            return k
    else:
        k.evp = _evp_new(EVP_aes_128_gcm() if key_bytes == 16 else EVP_aes_256_gcm(), key)
        if k.evp != NULL:
            return k
    keymem_free(k, sizeof(AeadKey))
    return NULL


cdef void aead_free(AeadKey* k) noexcept nogil:
    if k != NULL:
        keymem_free(k.expanded, relay_gcm_key_bytes())
        EVP_CIPHER_CTX_free(k.evp)
        keymem_free(k, sizeof(AeadKey))


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
    k = <CmKey*>keymem_new(sizeof(CmKey))
    if k == NULL:
        return NULL
    if resolved == CIPHER_IPSEC_MB:
        k.expanded = keymem_new(relay_cm_key_bytes())
        if k.expanded != NULL:
            relay_cm_expand(k.expanded, key)
            return k
    else:
        k.evp = _evp_new(EVP_aes_128_ctr(), key)
        if k.evp != NULL:
            return k
    keymem_free(k, sizeof(CmKey))
    return NULL


cdef void cm_free(CmKey* k) noexcept nogil:
    if k != NULL:
        keymem_free(k.expanded, relay_cm_key_bytes())
        EVP_CIPHER_CTX_free(k.evp)
        keymem_free(k, sizeof(CmKey))


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
    cdef uint8_t block[SHA1_BLOCK_BYTES]
    cdef HmacKey* k = <HmacKey*>keymem_new(sizeof(HmacKey))
    cdef SHA_CTX* state
    cdef uint8_t pad
    cdef bint done = k != NULL
    cdef int i, half
    for half in range(2 if done else 0):
        state = &k.inner if half == 0 else &k.outer
        pad = 0x36 if half == 0 else 0x5c
        memset(block, 0, SHA1_BLOCK_BYTES)
        if key_bytes <= SHA1_BLOCK_BYTES:
            memcpy(block, key, <size_t>key_bytes)
        elif SHA1_Init(state) != 1 or SHA1_Update(state, key, <size_t>key_bytes) != 1 or SHA1_Final(block, state) != 1:
            done = False
        for i in range(SHA1_BLOCK_BYTES):
            block[i] = <uint8_t>(block[i] ^ pad)
        if SHA1_Init(state) != 1 or SHA1_Update(state, block, SHA1_BLOCK_BYTES) != 1:
            done = False
    OPENSSL_cleanse(block, SHA1_BLOCK_BYTES)
    if not done:
        hmac_free(k)
        return NULL
    return k


cdef void hmac_free(HmacKey* k) noexcept nogil:
    keymem_free(k, sizeof(HmacKey))


cdef int hmac_sha1(HmacKey* k, const uint8_t* data, Py_ssize_t n, uint8_t* digest) noexcept nogil:
    # What is left of the copies on the stack would sign anything.
    cdef SHA_CTX state = k.inner
    cdef bint done = SHA1_Update(&state, data, <size_t>n) == 1 and SHA1_Final(digest, &state) == 1
    state = k.outer
    done = done and SHA1_Update(&state, digest, SHA1_BYTES) == 1 and SHA1_Final(digest, &state) == 1
    OPENSSL_cleanse(&state, sizeof(state))
    return E_OK if done else E_MEMORY


def backend_name(int backend=CIPHER_AUTO) -> str:
    """Return what `backend` runs as here, e.g. "ipsec-mb (avx512)"; "unavailable" if it cannot."""
    return cipher_name(backend).decode()


def thread_managers() -> int:
    """Return how many threads hold an ipsec-mb manager of their own."""
    return relay_imb_count()


cdef list _memory(const void* p, size_t n):
    # OpenSSL's contexts lie where it puts them.
    return [] if p == NULL else [(<uintptr_t>p, n)]


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

    @property
    def memory(self) -> list:
        """(address, bytes) of what holds the key."""
        return _memory(self.key.expanded, relay_gcm_key_bytes())

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

    @property
    def memory(self) -> list:
        """(address, bytes) of what holds the key."""
        return _memory(self.key.expanded, relay_cm_key_bytes())

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


@cython.final
cdef class Hmac:
    """Test face: HMAC-SHA1 under one key."""
    cdef HmacKey* key

    def __cinit__(self, bytes key not None):
        self.key = hmac_new(key, len(key))
        if self.key == NULL:
            raise MemoryError("HMAC")

    def __dealloc__(self):
        hmac_free(self.key)

    @property
    def memory(self) -> list:
        """(address, bytes) of what holds the key."""
        return _memory(self.key, sizeof(HmacKey))

    def tag(self, bytes data not None) -> bytes:
        cdef uint8_t digest[SHA1_BYTES]
        if hmac_sha1(self.key, data, len(data), digest) < 0:
            raise MemoryError("HMAC")
        return digest[:SHA1_BYTES]


def sha1_tag(bytes key not None, bytes data not None) -> bytes:
    """Return HMAC-SHA1 of data, the second under one key object to prove that the key survives a message."""
    k = Hmac(key)
    k.tag(b"x")
    return k.tag(data)

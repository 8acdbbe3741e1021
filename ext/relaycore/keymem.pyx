"""Blocks for keys out of pages with MADV_DONTDUMP (madvise(2)); the contract stands in keymem.pxd.

Chunks of pages are cut into blocks of the sizes that are asked for, and free blocks of a size are a list that goes through
them. Nothing is given back to the system: the next transports need it again. Sizes are not rounded to powers of two, which would
put the hot lines of all contexts into the same places of the caches.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset

cdef extern from *:
    """
    #include <pthread.h>
    #include <string.h>
    #include <sys/mman.h>
    static pthread_mutex_t keymem_mutex = PTHREAD_MUTEX_INITIALIZER;
    static void keymem_lock(void) { pthread_mutex_lock(&keymem_mutex); }
    static void keymem_unlock(void) { pthread_mutex_unlock(&keymem_mutex); }
    """
    void keymem_lock() noexcept nogil
    void keymem_unlock() noexcept nogil
    void explicit_bzero(void* p, size_t n) noexcept nogil
    void* mmap(void* address, size_t bytes, int protection, int flags, int fd, long offset) noexcept nogil
    int madvise(void* address, size_t bytes, int advice) noexcept nogil
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MADV_DONTDUMP
    void* MAP_FAILED

cdef enum:
    LINE_BYTES = 64
    CHUNK_BYTES = 262144           # about 100 contexts with both directions' key schedules
    SIZES = 16

cdef struct FreeBlock:             # the head of a block that nobody has; the rest of it is zeros
    FreeBlock* next

cdef struct BlockSize:
    size_t bytes
    FreeBlock* unused

# Of the process, under the lock: keys move between threads.
cdef BlockSize sizes[SIZES]
cdef uint8_t* chunk = NULL
cdef size_t chunk_left = 0
cdef size_t in_use = 0


cdef inline size_t _rounded(size_t n) noexcept nogil:
    return (n + LINE_BYTES - 1u) // LINE_BYTES * LINE_BYTES


cdef BlockSize* _size_of(size_t bytes) noexcept nogil:
    cdef int i
    for i in range(SIZES):
        if sizes[i].bytes == 0:
            sizes[i].bytes = bytes
        if sizes[i].bytes == bytes:
            return &sizes[i]
    return NULL


cdef bint _add_chunk() noexcept nogil:
    """Take pages for further blocks; what is left of those before stays unused."""
    global chunk, chunk_left
    cdef void* memory = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == MAP_FAILED:
        return False
    # Advice: where a kernel does not take it, the process is still not dumpable.
    madvise(memory, CHUNK_BYTES, MADV_DONTDUMP)
    chunk = <uint8_t*>memory
    chunk_left = CHUNK_BYTES
    return True


cdef void* _take(size_t bytes) noexcept nogil:
    global chunk, chunk_left, in_use
    cdef BlockSize* size = _size_of(bytes)
    cdef void* block
    if size == NULL:
        return NULL
    if size.unused != NULL:
        block = size.unused
        size.unused = size.unused.next
    elif bytes <= chunk_left or _add_chunk():
        block = chunk
        chunk += bytes
        chunk_left -= bytes
    else:
        return NULL
    in_use += bytes
    # The link, and what somebody may have written into a block that was no longer his.
    memset(block, 0, bytes)
    return block


cdef void* keymem_new(size_t n) noexcept nogil:
    cdef size_t bytes = _rounded(n)
    cdef void* block
    if bytes == 0 or bytes > CHUNK_BYTES:
        return NULL
    keymem_lock()
    block = _take(bytes)
    keymem_unlock()
    return block


cdef void keymem_free(void* p, size_t n) noexcept nogil:
    global in_use
    cdef size_t bytes = _rounded(n)
    cdef BlockSize* size
    cdef FreeBlock* block = <FreeBlock*>p
    if p == NULL:
        return
    explicit_bzero(p, bytes)
    keymem_lock()
    size = _size_of(bytes)
    block.next = size.unused
    size.unused = block
    in_use -= bytes
    keymem_unlock()


def used_bytes() -> int:
    """Return how much of this memory somebody holds."""
    cdef size_t found
    keymem_lock()
    found = in_use
    keymem_unlock()
    return found

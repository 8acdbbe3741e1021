"""Memory for keys and what is computed from them: left out of core files, and wiped before anybody gets it again.

For few long-lived blocks of few sizes (contexts of transports): whoever frees a block says how long it was. From any thread.
"""

# n bytes of zeros at the start of a cache line; NULL = no memory, or more sizes than expected.   Owns: the caller frees it.
cdef void* keymem_new(size_t n) noexcept nogil
cdef void keymem_free(void* p, size_t n) noexcept nogil          # NULL is fine

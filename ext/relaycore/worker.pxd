"""One data plane thread as a Python object; everything a control plane may do with it is in `port` and here."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from relaycore.exchange cimport WorkerExchange
from cpython.ref cimport PyObject
from relaycore.port cimport CommandPort
from relaycore.thread cimport WorkerThread

cdef class Worker(CommandPort):
    cdef WorkerThread* _thread         # owned; NULL = does not run
    cdef list _addresses               # (ip, port) as asked for
    cdef list _sockets                 # dicts of what was bound and obtained
    cdef int _backend
    cdef uint64_t _seed
    cdef uint32_t _index, _small_slots, _large_slots
    cdef int _buffer_bytes
    cdef tuple _limits
    cdef bint _is_over
    cdef WorkerExchange _exchange      # or None
    cdef PyObject* _held               # owned reference to it while there is a thread

    cdef int _end(self, int64_t timeout_ms) noexcept
    cdef void _release(self) noexcept

"""The load generator as a Python object: its threads, and which of them has which endpoint."""
from libc.stdint cimport uint32_t, uint64_t
from relaycore.lgmodel cimport LoadThread
from relaycore.lgthread cimport Runner

cdef class LoadGenerator:
    cdef Runner* _threads[64]
    cdef int _thread_count
    cdef dict _endpoints               # id -> (thread, index)
    cdef dict _senders                 # id -> endpoint id
    cdef dict _receivers
    cdef uint32_t _last_id
    cdef int _opened
    cdef uint64_t _seed
    cdef int _event_fd
    cdef int _backend
    cdef bint _is_lazy, _is_realtime, _is_started
    cdef double _drain_ms
    cdef bytes _key
    cdef dict _marks                   # thread -> (cpu_ns, wait_ns, now_ns) at the last reset

    cdef LoadThread* _enter(self, int thread) noexcept
    cdef void _leave(self, int thread) noexcept
    cdef uint32_t _next_id(self) noexcept
    cdef tuple _place(self, endpoint)
    cdef object _change_sender(self, object sender, object encoding, object started, object active, bint keyframe)
    cdef tuple _thread_clocks(self, int thread)

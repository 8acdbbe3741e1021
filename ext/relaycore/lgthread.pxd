"""One OS thread of the load generator and the lock under which Python changes what it owns."""
from libc.stdint cimport uint8_t, uint32_t, int64_t
from relaycore.lgmodel cimport Endpoint, LoadThread

ctypedef struct RunnerOptions:
    int is_eager
    int has_kernel_time
    uint32_t verify_every
    int srtp_backend
    int64_t drain_ns
    int receive_buffer_bytes
    int send_buffer_bytes
    uint32_t hold_slots
    int event_fd                   # borrowed
    const uint8_t* key             # 16 bytes
    int sending

cdef struct Runner                 # defined in lgthread.pyx

cdef Runner* runner_new(uint32_t number, const RunnerOptions* options) noexcept nogil      # NULL: no memory or descriptors
cdef int runner_start(Runner* r) noexcept nogil                        # E_OK, E_OS
cdef int runner_stop(Runner* r, int64_t timeout_ms) noexcept nogil     # E_OK, E_STATE when it still runs
cdef void runner_free(Runner* r) noexcept nogil                        # never started, or stopped
# Between these the caller is the owner of what `runner_enter` returns.
cdef LoadThread* runner_enter(Runner* r) noexcept nogil
cdef void runner_leave(Runner* r) noexcept nogil                       # wakes the thread: something may be due earlier now
cdef int runner_watch(Runner* r, Endpoint* e) noexcept nogil           # E_OK, E_OS; nothing to do when lazy
cdef int64_t runner_cpu_ns(Runner* r) noexcept nogil                   # of the thread since its start
cdef int runner_tid(Runner* r) noexcept nogil                          # 0 = never ran
cdef bint runner_is_running(Runner* r) noexcept nogil
cdef int64_t load_now_ns() noexcept nogil

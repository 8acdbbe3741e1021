"""How long datagrams wait in a socket's queue before they are read."""
from libc.stdint cimport uint8_t, int64_t

ctypedef struct Backlog:           # of one socket; zero-initialise
    uint8_t was_full               # the last batch; two in a row are a backlog
    uint8_t takes_stamps           # the kernel notes when datagrams arrive
    int64_t stamped_ns             # since then
    int64_t read_wall_ns           # wall clock when reading of the present batch began
    int64_t full_ns                # last full batch
    int64_t lag_ns                 # how long the last batch had waited; 0 = not at all, or not known

# A batch is about to be read.
cdef void backlog_read(Backlog* b) noexcept nogil
# A batch was read. first: its first message (struct msghdr), NULL when it is empty. overflowed: the kernel dropped some before.
cdef void backlog_note(Backlog* b, int fd, void* first, bint is_full, bint overflowed, int64_t now_ns) noexcept nogil

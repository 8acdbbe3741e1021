"""Arguments of Python checked and put into the structs of the load generator; ValueError names what is wrong."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from relaycore.hdrext cimport ExtMap
from relaycore.lgmodel cimport Sender, Stream

cdef int put_number(uint32_t* out, str what, object number, uint32_t least) except -1
cdef int put_short(str what, object text, uint8_t* out, uint8_t* out_bytes, Py_ssize_t limit) except -1
cdef int put_extensions(object id_by_uri, ExtMap* out) except -1
# A new sender or stream; the caller owns it.
cdef Sender* make_sender(uint32_t id, uint64_t seed, str kind, dict spec) except NULL
cdef Stream* make_stream(uint32_t id, str kind, object codecs, dict spec) except NULL
cdef void drop_sender(Sender* s) noexcept

"""What a transport is set up by: ICE connectivity checks (RFC 8445, lite) and DTLS datagrams, which go to the control plane."""
from libc.stdint cimport uint8_t, uint16_t, int64_t
from relaycore.routes cimport Engine, Transport
from relaycore.slab cimport Slot
from relaycore.stun cimport SockAddr

cdef void receive_check(Engine* e, const uint8_t* buf, Py_ssize_t n, const SockAddr* remote, uint16_t socket_index,
                        int64_t now_ns) noexcept nogil
cdef void receive_dtls(Engine* e, Transport* t, int tuple_index, const Slot* slot, int64_t now_ns) noexcept nogil

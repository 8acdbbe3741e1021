"""Addresses in three notations: the engine's `SockAddr`, the kernel's sockaddr, Python's (ip, port)."""
from libc.stdint cimport uint32_t
from relaycore.stun cimport SockAddr

cdef uint32_t write_sockaddr(const SockAddr* from_, void* to) noexcept nogil      # a sockaddr_storage; returns the bytes written
cdef void read_sockaddr(const void* from_, SockAddr* to) noexcept nogil           # of an IPv4 or IPv6 socket

# Edge (take the GIL by their caller): ValueError on anything that is no plain unicast address.
cdef int parse_address(str ip, int port, SockAddr* out) except -1
cdef tuple format_address(const SockAddr* address)

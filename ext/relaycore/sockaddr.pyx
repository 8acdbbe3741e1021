"""Addresses in three notations: the engine's `SockAddr`, the kernel's sockaddr, Python's (ip, port)."""
import ipaddress

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset
from relaycore.stun cimport SockAddr

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <sys/socket.h>
    """
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    int AF_INET, AF_INET6
    uint16_t htons(uint16_t value) noexcept nogil
    uint16_t ntohs(uint16_t value) noexcept nogil


cdef uint32_t write_sockaddr(const SockAddr* from_, void* to) noexcept nogil:
    cdef sockaddr_in* v4 = <sockaddr_in*>to
    cdef sockaddr_in6* v6 = <sockaddr_in6*>to
    if from_.family == 4:
        memset(v4, 0, sizeof(sockaddr_in))
        v4.sin_family = <unsigned short>AF_INET
        v4.sin_port = htons(from_.port)
        memcpy(&v4.sin_addr, from_.ip, 4)
        return sizeof(sockaddr_in)
    memset(v6, 0, sizeof(sockaddr_in6))
    v6.sin6_family = <unsigned short>AF_INET6
    v6.sin6_port = htons(from_.port)
    memcpy(&v6.sin6_addr, from_.ip, 16)
    return sizeof(sockaddr_in6)


cdef void read_sockaddr(const void* from_, SockAddr* to) noexcept nogil:
    cdef const sockaddr_in* v4 = <const sockaddr_in*>from_
    cdef const sockaddr_in6* v6 = <const sockaddr_in6*>from_
    # SockAddr is compared by memcmp.
    memset(to, 0, sizeof(SockAddr))
    if v4.sin_family == AF_INET:
        to.family = 4
        to.port = ntohs(v4.sin_port)
        memcpy(to.ip, &v4.sin_addr, 4)
    else:
        to.family = 6
        to.port = ntohs(v6.sin6_port)
        memcpy(to.ip, &v6.sin6_addr, 16)


cdef int parse_address(str ip, int port, SockAddr* out) except -1:
    cdef bytes packed
    address = ipaddress.ip_address(ip)
    if getattr(address, "scope_id", None) is not None:
        raise ValueError(f"{ip}: link-local scopes are not supported")
    if address.is_multicast:
        raise ValueError(f"{ip}: not a unicast address")
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is out of range")
    packed = address.packed
    memset(out, 0, sizeof(SockAddr))
    out.family = address.version
    out.port = <uint16_t>port
    memcpy(out.ip, <const char*>packed, <size_t>len(packed))
    return 0


cdef tuple format_address(const SockAddr* address):
    cdef bytes packed = PyBytes_FromStringAndSize(<const char*>address.ip, 4 if address.family == 4 else 16)
    return str(ipaddress.ip_address(packed)), address.port

"""Test face of the first-octet demultiplexer in demux.pxd."""
from libc.stdint cimport uint8_t

_KINDS = {KIND_OTHER: "other", KIND_STUN: "stun", KIND_DTLS: "dtls", KIND_RTP: "rtp", KIND_RTCP: "rtcp"}


def kind(bytes data not None):
    """Return what a datagram claims to be: "stun", "dtls", "rtp", "rtcp" or "other"."""
    return _KINDS[demux_datagram(<const uint8_t*>data, len(data))]

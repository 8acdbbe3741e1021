"""DTLS records as bytes: where one ends, which ones share a datagram, whether a datagram can be DTLS at all.

Spec: RFC 6347 §4.1 (record header), RFC 7983 §7 (first octet 20..63 is DTLS).

     0        1        2                 3       5        11       13
    +--------+--------+--------+--------+--------+--------+--------+---
    |  type  |   version 0xFEFx|      epoch      | seq 48 | length | body
    +--------+--------+--------+--------+--------+--------+--------+---

OpenSSL writes into a memory BIO, which forgets where a datagram ended; the headers are how we find out again.
"""

HEADER_BYTES = 13

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23

DTLS_MAJOR = 0xFE
"""First version octet of every DTLS up to 1.2, counted downwards from 255 by RFC 4347."""


def split_records(stream: bytes) -> list[bytes]:
    """Cut records written one after another into single ones.

    Errors: ValueError if the bytes are not whole records, which would be a bug of ours: OpenSSL wrote them.
    """
    records = []
    offset = 0
    while offset < len(stream):
        end = offset + HEADER_BYTES + int.from_bytes(stream[offset + 11 : offset + 13], "big")
        if end > len(stream):
            raise ValueError("a record ends after the bytes that should hold it")
        records.append(stream[offset:end])
        offset = end
    return records


def pack_datagrams(records: list[bytes], limit_bytes: int) -> list[bytes]:
    """Join records in order into as few datagrams as fit; one record longer than the limit goes alone."""
    datagrams: list[bytes] = []
    pending = b""
    for record in records:
        if pending and len(pending) + len(record) > limit_bytes:
            datagrams.append(pending)
            pending = b""
        pending += record
    if pending:
        datagrams.append(pending)
    return datagrams


def looks_like_dtls(datagram: bytes) -> bool:
    """Return whether the first record's header is one of DTLS 1.0 to 1.2 and its body is all there."""
    return (
        len(datagram) > HEADER_BYTES
        and CHANGE_CIPHER_SPEC <= datagram[0] <= APPLICATION_DATA
        and datagram[1] == DTLS_MAJOR
        and HEADER_BYTES + int.from_bytes(datagram[11:13], "big") <= len(datagram)
    )


def holds_handshake(datagram: bytes) -> bool:
    """Return whether the first record belongs to a handshake flight, whatever its epoch."""
    return datagram[0] in (CHANGE_CIPHER_SPEC, HANDSHAKE)

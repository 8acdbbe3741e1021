"""Fuzz targets of a session: data channel messages, DTLS datagrams in three stages, SCTP chunks after the handshake."""

import struct

from relay.session import Certificate, DatagramReady, Transport, dcep
from relay.session.sctp.association import Association, Message, Up, advance, ffi, lib
from tests.fuzz.run import CORPUS

OURS, THEIRS = Certificate.generate(), Certificate.generate()
MS = 1_000_000


def seeds_dcep() -> list[bytes]:
    return [
        dcep.ACK,
        dcep.Open("_reliable").write(),
        dcep.Open("_lossy", ordered=False, max_retransmits=1).write(),
        dcep.Open("ü" * 100, protocol="p" * 50, max_lifetime_ms=500).write(),
    ]


def fuzz_dcep(data: bytes) -> tuple[bool, ...]:
    found = dcep.parse_open(data)
    if found is None:
        return (False,)
    again = found.write()
    # The priority is not read, nor the reliability parameter of a channel that is reliable.
    assert dcep.parse_open(again) == found and again[8:] == data[8:]
    return (True, found.ordered, found.max_retransmits is None, found.max_lifetime_ms is None)


def _named(certificate: Certificate) -> list[tuple[str, str]]:
    hash_name, value = certificate.fingerprint.split(" ")
    return [(hash_name, value)]


def _pair(connected: bool) -> tuple[Transport, list[bytes]]:
    """Return a server, and what the client would send it next when the server stays half-way."""
    server, client = Transport(OURS), Transport(THEIRS)
    server.set_remote(_named(THEIRS), "server")
    client.set_remote(_named(OURS), "client")
    to_server = [event.data for event in client.poll(0) if isinstance(event, DatagramReady)]
    for _ in range(4 if connected else 1):
        for datagram in to_server:
            server.receive_dtls(datagram, 0)
        for event in server.poll(0):
            if isinstance(event, DatagramReady):
                client.receive_dtls(event.data, 0)
        to_server = [event.data for event in client.poll(0) if isinstance(event, DatagramReady)]
    return server, to_server


def seeds_dtls_datagram() -> list[bytes]:
    hello = [b"\0" + path.read_bytes() for path in sorted((CORPUS / "demux").glob("*-client-hello.bin"))]
    _, flight = _pair(connected=False)
    return [*hello, *(b"\1" + datagram for datagram in flight), b"\2" + bytes.fromhex("15fefd0001000000000001") + b"\0\x1a"]


def fuzz_dtls_datagram(data: bytes) -> tuple[str, int, int]:
    """The first byte picks the stage: before the handshake, in its middle, after it."""
    stage, datagram = data[0] % 3 if data else 0, data[1:]
    if stage == 0:
        server = Transport(OURS)
        server.set_remote(_named(THEIRS), "server")
    else:
        server, _ = _pair(connected=stage == 2)
    server.receive_dtls(datagram, MS)
    answer_bytes = sum(len(event.data) for event in server.poll(MS) if isinstance(event, DatagramReady))
    # One datagram in must not become a flood out.
    assert answer_bytes <= max(4_000, 4 * len(datagram))
    server.poll(1_000 * MS)
    state = server.state.value
    server.close()
    server.poll(1_001 * MS)
    return state, stage, min(answer_bytes, 2)


def _chunk(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def seeds_sctp_packet() -> list[bytes]:
    def packets(*rows: bytes) -> bytes:
        return b"".join(struct.pack("!H", len(row)) + row for row in rows)

    data = [_chunk(0, struct.pack("!IHHI", number, 1, 0, 51) + b"x" * 300, flags)
            for number, flags in enumerate((6, 4, 4, 5))]
    ordered = [_chunk(0, struct.pack("!IHHI", number, 2, number, 53) + b"y" * 40, 3) for number in range(3)]
    opening = dcep.Open("c").write()
    reset = struct.pack("!HHIIIH", 13, 18, 0, 0, 3, 2) + bytes(2)
    return [
        packets(*data),
        packets(data[0], data[2] + data[3], _chunk(192, struct.pack("!I", 1)), data[1]),
        packets(ordered[2], ordered[0], _chunk(192, struct.pack("!IHH", 1, 2, 1))),
        packets(_chunk(0, struct.pack("!IHHI", 0, 0, 0, 50) + opening, 3), _chunk(130, reset)),
        packets(_chunk(130, struct.pack("!HHII", 16, 12, 0, 1)), _chunk(130, struct.pack("!HHIH", 14, 10, 0, 2))),
        packets(_chunk(3, struct.pack("!IIHHHHI", 0, 70_000, 1, 1, 2, 2, 1)), _chunk(4, struct.pack("!HH", 1, 12) + bytes(8))),
        packets(_chunk(10, bytes(200)) + data[0], _chunk(11, b""), _chunk(9, struct.pack("!HHI", 3, 8, 5))),
        packets(_chunk(7, bytes(4)), _chunk(8, b""), _chunk(14, b"")),
        packets(_chunk(1, struct.pack("!IIHHI", 9, 90_000, 5, 5, 1) + struct.pack("!HH", 0xC000, 4))),
        packets(_chunk(6, b"")),
    ]


def fuzz_sctp_packet(data: bytes) -> tuple[bool, int, int]:
    """Packets of chunks, each with a two-byte length before it, into an association that is up.

    Sequence numbers count from the first one of the association, so that an input means the same in every run.
    """
    advance(MS)
    near, far = Association(5000, 5000, 65_536), Association(5000, 5000, 65_536)
    try:
        near_tag, first_tsn = _connect(near, far)
        items = []
        offset = 0
        while offset + 2 <= len(data) and near.open:
            (length,) = struct.unpack_from("!H", data, offset)
            chunks = _renumbered(data[offset + 2 : offset + 2 + length], first_tsn)
            offset += 2 + length
            items += near.receive(_packet(chunks, near_tag))
            near.outgoing()
        for item in items:
            assert not isinstance(item, Message) or len(item.data) <= 65_536
        return bool(items), len({type(item) for item in items}), min(near.refused_packets, 3)
    finally:
        near.close()
        far.close()


def _connect(near: Association, far: Association) -> tuple[int, int]:
    """Return the tag that packets to `near` carry, and the first TSN it expects."""
    near_tag = first_tsn = 0
    up = 0
    for _ in range(10):
        for sender, receiver in ((near, far), (far, near)):
            for packet in sender.outgoing():
                if sender is far and packet[12] in (1, 2):
                    (first_tsn,) = struct.unpack_from("!I", packet, 28)
                if sender is far and packet[12] not in (1, 2):
                    (near_tag,) = struct.unpack_from("!I", packet, 4)
                up += sum(isinstance(item, Up) for item in receiver.receive(packet))
        if up == 2 and near_tag:
            return near_tag, first_tsn
    raise RuntimeError("two associations in one process did not connect")


def _renumbered(chunks: bytes, first_tsn: int) -> bytes:
    """Move TSNs of DATA and FORWARD TSN chunks to where the association is."""
    out = bytearray(chunks)
    offset = 0
    while offset + 8 <= len(out):
        kind, _, length, number = struct.unpack_from("!BBHI", out, offset)
        if kind in (0, 192):
            struct.pack_into("!I", out, offset + 4, (number + first_tsn) & 0xFFFF_FFFF)
        offset += max(4, (length + 3) & ~3)
    return bytes(out)


def _packet(chunks: bytes, tag: int) -> bytes:
    # An INIT goes alone and with tag 0 (RFC 9260 §8.5.1).
    raw = bytearray(struct.pack("!HHII", 5000, 5000, 0 if chunks[:1] == b"\1" else tag, 0) + chunks)
    raw[8:12] = struct.pack("=I", lib.usrsctp_crc32c(ffi.from_buffer(raw), len(raw)))
    return bytes(raw)

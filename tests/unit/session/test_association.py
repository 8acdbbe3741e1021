"""SCTP at the level of packets: the gate, hostile chunks, many associations, nothing left behind."""

import gc
import os
import random
import resource
import struct

import pytest

from relay.session import AssociationClosed, AssociationState, Certificate, ChannelOpened, MessageReceived, Transport
from relay.session.sctp import association as sctp
from relay.session.sctp.association import ffi, lib
from tests.support.session_link import MS, Link, fingerprints

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, ABORT, SHUTDOWN, ERROR, COOKIE_ECHO, COOKIE_ACK = 0, 1, 2, 3, 4, 6, 7, 9, 10, 11
AUTH, NR_SACK, I_DATA, ASCONF_ACK, PACKET_DROP, RE_CONFIG, PAD, FORWARD_TSN, ASCONF = (
    15, 16, 64, 128, 129, 130, 132, 192, 193,
)


def chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return one chunk with its padding."""
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def parameter(kind: int, body: bytes) -> bytes:
    return struct.pack("!HH", kind, 4 + len(body)) + body + bytes(-len(body) % 4)


def packet(*chunks: bytes, ports: tuple[int, int] = (5000, 5000), tag: int = 0) -> bytes:
    """Return a packet with a right checksum."""
    raw = bytearray(struct.pack("!HHII", *ports, tag, 0) + b"".join(chunks))
    checksum = lib.usrsctp_crc32c(ffi.from_buffer(raw), len(raw))
    raw[8:12] = struct.pack("=I", checksum)
    return bytes(raw)


@pytest.fixture
def alone():
    """An association that has sent its INIT and heard nothing."""
    association = sctp.Association(5000, 5000, 65_536)
    yield association
    association.close()


def passed(association: sctp.Association, raw: bytes) -> bytes:
    """Return what the gate lets through of a packet."""
    out = ffi.new("uint8_t[]", 2048)
    length = lib.veil_gate(association._handle, raw, len(raw), out)
    return ffi.buffer(out, length)[:]


INIT_BODY = struct.pack("!IIHHI", 7, 100_000, 10, 10, 1)

GOOD = {
    "data": chunk(DATA, struct.pack("!IHHI", 1, 0, 0, 53) + b"x", 3),
    "init": chunk(INIT, INIT_BODY),
    "init with parameters": chunk(INIT, INIT_BODY + parameter(0xC000, b"") + parameter(0x8008, bytes([192, 130]))),
    "init ack": chunk(INIT_ACK, INIT_BODY + parameter(7, bytes(100))),
    "sack": chunk(SACK, struct.pack("!IIHHHHI", 1, 1000, 1, 1, 2, 3, 9)),
    "heartbeat": chunk(HEARTBEAT, parameter(1, bytes(40))),
    "abort": chunk(ABORT, parameter(12, b"bye")),
    "shutdown": chunk(SHUTDOWN, bytes(4)),
    "cookie echo": chunk(COOKIE_ECHO, bytes(77)),
    "cookie ack": chunk(COOKIE_ACK),
    "outgoing reset": chunk(RE_CONFIG, parameter(13, struct.pack("!IIIHH", 1, 2, 3, 4, 5))),
    "incoming reset": chunk(RE_CONFIG, parameter(14, struct.pack("!IH", 1, 4))),
    "reset response": chunk(RE_CONFIG, parameter(16, struct.pack("!II", 1, 1))),
    "forward tsn": chunk(FORWARD_TSN, struct.pack("!IHH", 1, 2, 3)),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_gate_lets_what_webrtc_needs_through_unchanged(alone: sctp.Association, name: str) -> None:
    assert passed(alone, packet(GOOD[name])) == packet(GOOD[name])


BAD = {
    "empty data": chunk(DATA, bytes(12)),
    "short init": chunk(INIT, INIT_BODY[:-1]),
    "init beside another chunk": chunk(INIT, INIT_BODY) + chunk(COOKIE_ACK),
    "init with an IPv4 address": chunk(INIT, INIT_BODY + parameter(5, bytes(4))),
    "init with an IPv6 address": chunk(INIT, INIT_BODY + parameter(6, bytes(16))),
    "init with a host name": chunk(INIT, INIT_BODY + parameter(11, b"example.org\0")),
    "init with a parameter of no length": chunk(INIT, INIT_BODY + struct.pack("!HH", 0xC000, 0)),
    "init with a parameter of length 3": chunk(INIT, INIT_BODY + struct.pack("!HH", 0xC000, 3)),
    "init with a parameter past its end": chunk(INIT, INIT_BODY + struct.pack("!HH", 0xC000, 8)),
    "init ack with half a parameter": chunk(INIT_ACK, INIT_BODY + b"\xc0\x00"),
    "sack with more blocks than bytes": chunk(SACK, struct.pack("!IIHH", 1, 1000, 2, 0) + bytes(4)),
    "sack with fewer blocks than bytes": chunk(SACK, struct.pack("!IIHH", 1, 1000, 0, 0) + bytes(4)),
    "heartbeat without information": chunk(HEARTBEAT),
    "heartbeat with other information": chunk(HEARTBEAT, parameter(2, bytes(4))),
    "shutdown of the wrong size": chunk(SHUTDOWN, bytes(8)),
    "cookie ack with a body": chunk(COOKIE_ACK, bytes(4)),
    "reset of all sequence numbers": chunk(RE_CONFIG, parameter(15, bytes(4))),
    "added streams": chunk(RE_CONFIG, parameter(17, bytes(8))),
    "outgoing reset cut short": chunk(RE_CONFIG, parameter(13, bytes(8))),
    "outgoing reset with half a stream": chunk(RE_CONFIG, parameter(13, bytes(13))),
    "response with sequence numbers": chunk(RE_CONFIG, parameter(16, bytes(16))),
    "forward tsn cut short": chunk(FORWARD_TSN, bytes(2)),
    "forward tsn with half a stream": chunk(FORWARD_TSN, bytes(6)),
    "a chunk of no length": b"\x00\x03\x00\x00" + bytes(16),
    "a chunk past the end": b"\x00\x03\x00\xff" + bytes(16),
    "a good chunk and three bytes": chunk(COOKIE_ACK) + bytes(3),
}


@pytest.mark.parametrize("name", BAD)
def test_the_gate_keeps_what_does_not_add_up_out(alone: sctp.Association, name: str) -> None:
    raw = packet(BAD[name])
    assert passed(alone, raw) == b""
    assert list(alone.receive(raw)) == []
    assert alone.refused_packets == 1


def test_the_gate_looks_at_ports_and_sizes(alone: sctp.Association) -> None:
    for raw in (packet(GOOD["data"], ports=(5000, 5001)), packet(GOOD["data"], ports=(4999, 5000)), b"", bytes(15),
                packet(chunk(DATA, bytes(3000)))):
        assert passed(alone, raw) == b""


@pytest.mark.parametrize("kind", [ERROR, AUTH, NR_SACK, I_DATA, ASCONF_ACK, PACKET_DROP, PAD, ASCONF, 12, 13, 255])
def test_chunks_nobody_needs_are_taken_out_and_the_rest_passes(alone: sctp.Association, kind: int) -> None:
    raw = packet(chunk(kind, bytes(5)), GOOD["data"], chunk(kind, bytes(8)))
    assert passed(alone, raw) == packet(GOOD["data"])
    assert passed(alone, packet(chunk(kind, bytes(5)))) == b""


def test_a_running_association_cannot_be_restarted() -> None:
    """Released usrsctp walks the parameters of such an INIT without looking at their lengths (repaired in 2021)."""
    link = Link(delay_ms=5).connected()
    association = link.server._channels._association
    assert association is not None
    assert passed(association, packet(GOOD["init"])) == b""
    endless = chunk(INIT, INIT_BODY + struct.pack("!HH", 0xC000, 0))
    assert list(association.receive(packet(endless))) == []
    assert link.server.association_state is AssociationState.UP
    link.close()


def peer_tag(link: Link) -> int:
    """Return the verification tag that packets to the server must carry."""
    association = link.client._channels._association
    assert association is not None and association.send(0, 53, b"x")
    (sent, *_) = association.outgoing()
    return struct.unpack_from("!I", sent, 4)[0]


@pytest.mark.parametrize("seed", range(1, 4))
def test_random_chunks_with_the_right_tag_do_no_harm(seed: int) -> None:
    """What a participant may do after the handshake: anything. The process lives and other associations go on."""
    rng = random.Random(seed)
    bystander = Link(seed=seed, delay_ms=5).connected()
    link = Link(seed=seed, delay_ms=5).connected()
    tag = peer_tag(link)
    for _ in range(3_000):
        association = link.server._channels._association
        if association is None:
            link.close()
            link = Link(seed=seed, delay_ms=5).connected()
            tag = peer_tag(link)
            association = link.server._channels._association
            assert association is not None
        chunks = []
        for _ in range(rng.randrange(1, 5)):
            good = bytearray(rng.choice(list(GOOD.values())))
            for _ in range(rng.choice((0, 1, 2, 8))):
                good[rng.randrange(len(good))] = rng.choice((0, 1, 2, 4, 8, 127, 128, 255, rng.randrange(256)))
            chunks.append(bytes(good))
        link.server._channels.receive([packet(*chunks, tag=tag)], link.now_ns)
        link.server.next_timeout_ns = 0
        link.run(1)
    channel = bystander.client.open_channel("c")
    bystander.client.send(channel, b"still here")
    bystander.run(2_000)
    assert bystander.of(bystander.server, MessageReceived)[-1].data == b"still here"
    link.close()
    bystander.close()


def test_unordered_fragments_and_forward_tsn_do_not_lock_up() -> None:
    """A partly delivered unordered message that a FORWARD TSN then skips: a self-deadlock in released usrsctp.

    It cannot form here, because a message is above the limit before partial delivery begins.
    """
    link = Link(delay_ms=5).connected()
    tag = peer_tag(link)
    association = link.client._channels._association
    assert association is not None and association.send(0, 53, b"y")
    first = struct.unpack_from("!I", association.outgoing()[0], 16)[0]
    for number in range(100):
        flags = 4 | (2 if number == 0 else 0)
        data = chunk(DATA, struct.pack("!IHHI", (first + number) & 0xFFFFFFFF, 0, 0, 53) + bytes(1_000), flags)
        link.server._channels.receive([packet(data, tag=tag)], link.now_ns)
        skip = chunk(FORWARD_TSN, struct.pack("!I", (first + number // 2) & 0xFFFFFFFF))
        if number % 3 == 2:
            link.server._channels.receive([packet(skip, tag=tag)], link.now_ns)
    link.server.next_timeout_ns = 0
    link.run(1_000)
    assert link.server.association_state in (AssociationState.UP, AssociationState.DOWN)
    link.close()


def test_hundreds_of_associations_live_side_by_side() -> None:
    links = [Link(seed=number, delay_ms=5) for number in range(150)]
    for link in links:
        link.connected()
    assert sctp.live() >= 2 * len(links)
    for number, link in enumerate(links):
        link.client.send(link.client.open_channel(f"c{number}"), b"%d" % number)
    for link in links:
        link.now_ns = max(other.now_ns for other in links)
        link.run(100)
    for number, link in enumerate(links):
        assert [event.data for event in link.of(link.server, MessageReceived)] == [b"%d" % number]
        assert [event.label for event in link.of(link.server, ChannelOpened)] == [f"c{number}"]
    # Closing every other one disturbs nobody.
    for link in links[::2]:
        link.close()
    for link in links[1::2]:
        link.now_ns = links[0].now_ns
        link.client.send(1, b"again")
        link.run(100)
        assert link.of(link.server, MessageReceived)[-1].data == b"again"
        link.close()
    assert sctp.live() == 0


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="ASAN keeps freed memory on purpose")
def test_five_hundred_cycles_of_open_and_close_leave_nothing() -> None:
    certificate = Certificate.generate()

    def cycle(number: int) -> None:
        link = Link(delay_ms=5, connect=False)
        link.server, link.client = Transport(certificate), Transport(certificate)
        link.events = {link.server: [], link.client: []}
        link.sent = {link.server: [], link.client: []}
        link.now_ns += number * 1_000 * MS
        link.server.set_remote(fingerprints(link.client), "server")
        link.client.set_remote(fingerprints(link.server), "client")
        link.server.enable_sctp()
        link.client.enable_sctp()
        link.connected()
        channel = link.client.open_channel("c")
        link.client.send(channel, bytes(20_000))
        link.run(50)
        # Some leave in the middle of a message, some without goodbye.
        if number % 3:
            link.close()
        else:
            link.server.close()
            link.server.poll(link.now_ns)

    for number in range(100):
        cycle(number)
    gc.collect()
    before = resident_bytes()
    for number in range(100, 600):
        cycle(number)
    gc.collect()
    sctp.advance(10_000_000 * MS)
    assert sctp.live() == 0
    assert resident_bytes() - before < 4_000_000


def test_an_association_dropped_without_close_is_freed_by_the_next_one() -> None:
    association = sctp.Association(5000, 5000, 65_536)
    del association
    gc.collect()
    sctp.advance(20_000_000 * MS)
    assert not sctp._clock.orphans


def test_a_closed_association_takes_and_gives_nothing() -> None:
    association = sctp.Association(5000, 5000, 65_536)
    association.close()
    assert list(association.receive(packet(GOOD["init"]))) == []
    assert list(association.read()) == []
    assert association.outgoing() == [] and association.close() == []
    assert not association.busy


def test_an_abort_from_the_peer_ends_the_association() -> None:
    link = Link(delay_ms=5).connected()
    link.server._channels.receive([packet(GOOD["abort"], tag=peer_tag(link))], link.now_ns)
    link.server.next_timeout_ns = 0
    link.run(100)
    assert link.of(link.server, AssociationClosed)
    link.close()

"""Real sockets on the loopback: batches, both families, what the kernel refuses, what runs out."""

import os
import socket
import subprocess
import sys
import time

import pytest

from relaycore import udp

FIRST = 1_000_000_000
MS = 1_000_000


def wait_for(
    face: udp.UdpFace, count: int, index: int = 0, now_ns: int = 1
) -> list[tuple[bytes, tuple[str, int], int, int]]:
    """Receive until `count` datagrams came; a datagram on the loopback is there within microseconds."""
    got: list[tuple[bytes, tuple[str, int], int, int]] = []
    until = time.monotonic() + 5
    while len(got) < count and time.monotonic() < until:
        got += face.receive(index, now_ns)
    return got


@pytest.fixture
def remote():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(5)
        yield s


def test_datagrams_arrive_with_their_source_and_time(remote):
    face = udp.UdpFace()
    _, port, _, _ = face.open("127.0.0.1")
    remote.sendto(b"hello", ("127.0.0.1", port))
    assert wait_for(face, 1, now_ns=77) == [(b"hello", remote.getsockname(), 256, 77)]


def test_small_datagrams_do_not_keep_large_slots(remote):
    face = udp.UdpFace()
    _, port, _, _ = face.open("127.0.0.1")
    for size in (0, 256, 257, 1600):
        remote.sendto(b"x" * size, ("127.0.0.1", port))
    assert [(len(data), capacity) for data, _, capacity, _ in wait_for(face, 4)] == [
        (0, 256),
        (256, 256),
        (257, 1600),
        (1600, 1600),
    ]


def test_a_burst_beyond_one_batch_arrives_in_order(remote):
    face = udp.UdpFace()
    _, port, _, _ = face.open("127.0.0.1")
    for number in range(150):
        remote.sendto(number.to_bytes(2, "big"), ("127.0.0.1", port))
    got = wait_for(face, 150)
    assert [int.from_bytes(data, "big") for data, *_ in got] == list(range(150))
    assert len(face.receive()) == 0


def test_too_long_a_datagram_is_counted_and_gone(remote):
    face = udp.UdpFace()
    _, port, _, _ = face.open("127.0.0.1")
    remote.sendto(b"x" * 1601, ("127.0.0.1", port))
    remote.sendto(b"next", ("127.0.0.1", port))
    assert [data for data, *_ in wait_for(face, 1)] == [b"next"]
    assert face.counters()["too_long"] == 1


def test_an_exhausted_slab_empties_the_kernel_queue_and_counts(remote):
    face = udp.UdpFace(large_slots=2, small_slots=0)
    _, port, _, _ = face.open("127.0.0.1")
    for number in range(5):
        remote.sendto(bytes([number]), ("127.0.0.1", port))
    time.sleep(0.01)
    assert [data for data, *_ in face.receive()] == [b"\0", b"\1"]
    assert face.counters()["slots_exhausted"] == 3
    remote.sendto(b"after", ("127.0.0.1", port))
    assert [data for data, *_ in wait_for(face, 1)] == [b"after"]


def test_overflow_of_the_kernel_queue_is_counted(remote):
    face = udp.UdpFace()
    _, port, obtained, _ = face.open("127.0.0.1", buffer_bytes=4096)
    assert obtained < 65536
    for _ in range(200):
        remote.sendto(b"x" * 1200, ("127.0.0.1", port))
    got = 0
    while batch := face.receive():
        got += len(batch)
    # The kernel tells with the next datagram how many it dropped before it.
    remote.sendto(b"last", ("127.0.0.1", port))
    assert len(wait_for(face, 1)) == 1
    assert face.counters()["receive_overflow"] == 200 - got > 0


def test_buffers_report_what_was_obtained():
    face = udp.UdpFace()
    fd, _, receive, send = face.open("127.0.0.1", buffer_bytes=100_000)
    with socket.socket(fileno=socket.dup(fd)) as s:
        assert receive == s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2 == 100_000
        assert send == s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 == 100_000


def test_datagrams_leave_in_order_from_their_sockets(remote):
    face = udp.UdpFace()
    ports = [face.open("127.0.0.1")[1] for _ in range(2)]
    for number in range(140):
        face.put(bytes([number]), *remote.getsockname(), number % 2)
    assert face.send() == 0
    got = [remote.recvfrom(100) for _ in range(140)]
    for index in (0, 1):
        mine = [data[0] for data, source in got if source == ("127.0.0.1", ports[index])]
        assert mine == list(range(index, 140, 2))
    assert face.counters()["datagrams_sent"] == 140
    assert face.counters()["bytes_sent"] == 140
    assert face.slots_used() == 0


def test_ipv6_sockets_carry_ipv6_alone():
    face = udp.UdpFace()
    _, port, _, _ = face.open("::1")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.bind(("::1", 0))
        s.settimeout(5)
        s.sendto(b"six", ("::1", port))
        source = s.getsockname()[:2]
        assert [(data, address) for data, address, *_ in wait_for(face, 1)] == [(b"six", source)]
        face.put(b"answer", *source)
        assert face.send() == 0
        assert s.recvfrom(100)[0] == b"answer"
    # V6ONLY: the same port is still free for IPv4.
    face.open("0.0.0.0", udp.UdpFace().open("::")[1])


def gather(sizes: list[tuple[int, int]], remote) -> tuple[list[bytes], dict]:
    """Send datagrams of (length, run) to one socket; return what arrives and the counters."""
    face = udp.UdpFace()
    face.open("127.0.0.1")
    for i, (size, run) in enumerate(sizes):
        face.put(bytes([i]) * size, "127.0.0.1", remote.getsockname()[1], 0, run)
    assert face.send() == 0
    return [remote.recv(2048) for _ in sizes], face.counters()


def test_equally_long_datagrams_of_a_run_are_one_send(remote):
    sizes = [(1000, 1)] * 8
    arrived, counters = gather(sizes, remote)
    assert arrived == [bytes([i]) * 1000 for i in range(8)]
    assert (counters["gso_sends"], counters["gso_datagrams"], counters["datagrams_sent"]) == (1, 8, 8)


@pytest.mark.parametrize(("sizes", "sends", "datagrams"), [
    ([(1000, 1), (1000, 1), (400, 1), (1000, 1)], 1, 3),
    ([(400, 1), (1000, 1), (1000, 1)], 1, 2),
    ([(1000, 1), (1000, 2), (1000, 2)], 1, 2),
    ([(1000, 1)] * 17, 1, 16),
    ([(1000, 1)] * 18, 2, 18),
    ([(1, 1)], 0, 0),
])
def test_a_run_ends_at_a_longer_datagram_behind_a_shorter_one_and_at_sixteen(sizes, sends, datagrams, remote):
    arrived, counters = gather(sizes, remote)
    assert arrived == [bytes([i]) * size for i, (size, _) in enumerate(sizes)]
    assert (counters["gso_sends"], counters["gso_datagrams"]) == (sends, datagrams)


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
/* A device without checksum offload, or a path whose MTU is below a segment: refuses segmented messages with FAIL_WITH. */
int sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags)
{
    int (*real)(int, struct mmsghdr *, unsigned, int) = dlsym(RTLD_NEXT, "sendmmsg");
    unsigned i = 0;
    while (i < n && m[i].msg_hdr.msg_controllen == 0)
        i++;
    if (i == 0) {
        errno = FAIL_WITH;
        return -1;
    }
    return real(fd, m, i, flags);
}
"""
REFUSED = """
import os
import socket
import subprocess
import sys
from relaycore.udp import UdpFace
remote = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
remote.bind(("127.0.0.1", 0))
remote.settimeout(5)
udp = UdpFace()
udp.open("127.0.0.1")
for turn in range(2):
    for i in range(60):
        udp.put(bytes([i]) * (1000 if i % 10 else 50), "127.0.0.1", remote.getsockname()[1], 0, i // 10)
    assert udp.send() == 0
    assert [remote.recv(2048)[0] for i in range(60)] == list(range(60)), "order or loss"
print(udp.counters()["gso_fallbacks"], udp.counters()["datagrams_sent"], udp.counters()["send_errors"])
"""


@pytest.mark.parametrize(("error", "fallbacks"), [("EIO", 1), ("EMSGSIZE", 0)])
def test_a_kernel_that_refuses_segments_gets_datagrams_in_order(error, fallbacks, tmp_path):
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", f"-DFAIL_WITH={error}", "-o", shim, tmp_path / "shim.c"], check=True)
    before = os.environ.get("LD_PRELOAD", "")
    environ = {**os.environ, "LD_PRELOAD": f"{before} {shim}".strip(), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", REFUSED], env=environ, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == [str(fallbacks), "120", "0"], ran.stderr


def test_a_refused_datagram_is_one_loss(remote):
    face = udp.UdpFace()
    face.open("127.0.0.1")
    face.put(b"before", *remote.getsockname())
    face.put(b"refused", "255.255.255.255", 9)  # EACCES: a broadcast without SO_BROADCAST
    face.put(b"refused", *remote.getsockname()[:1], 0)  # EINVAL: port 0
    face.put(b"after", *remote.getsockname())
    assert face.send() == 0
    assert [remote.recv(100) for _ in range(2)] == [b"before", b"after"]
    assert (face.counters()["send_errors"], face.counters()["refused"], face.counters()["datagrams_sent"]) == (2, 2, 2)


def test_a_wrong_socket_number_is_dropped_and_counted(remote):
    face = udp.UdpFace()
    face.open("127.0.0.1")
    face.put(b"lost", *remote.getsockname(), 3)
    assert face.send() == 0
    assert (face.counters()["send_errors"], face.slots_used()) == (1, 0)


def test_a_blocked_socket_keeps_its_datagrams_and_does_not_hold_others(remote):
    face = udp.UdpFace()
    face.open("127.0.0.1")
    face.open("127.0.0.1")
    face.block(0, FIRST)
    for number in range(6):
        face.put(bytes([number]), *remote.getsockname(), number % 2)
    assert face.send(FIRST) == 3
    assert face.next_ns() == FIRST + 20 * MS
    assert [remote.recv(1)[0] for _ in range(3)] == [1, 3, 5]
    face.unblock(0)
    assert face.send(FIRST + MS) == 0
    assert [remote.recv(1)[0] for _ in range(3)] == [0, 2, 4]
    assert face.next_ns() == 2**63 - 1


def test_what_waits_too_long_is_shed(remote):
    face = udp.UdpFace()
    face.open("127.0.0.1")
    face.block(0, FIRST)
    face.put(b"stale", *remote.getsockname())
    assert face.send(FIRST + 20 * MS - 1) == 1
    assert face.send(FIRST + 20 * MS) == 0
    assert face.counters()["queue_dropped"] == 1
    face.unblock(0)
    face.put(b"fresh", *remote.getsockname())
    assert face.send(FIRST + 60 * MS) == 0
    assert remote.recv(100) == b"fresh"


def test_closing_gives_ports_and_slots_back(remote):
    before = udp.fds_open()
    face = udp.UdpFace()
    _, port, _, _ = face.open("127.0.0.1")
    assert udp.fds_open() == before + 1
    with pytest.raises(OSError, match="in use"):
        udp.UdpFace().open("127.0.0.1", port)
    del face
    assert udp.fds_open() == before
    udp.UdpFace().open("127.0.0.1", port)


@pytest.mark.parametrize("ip", ["localhost", "", "224.0.0.1", "fe80::1%eth0", "1.2.3"])
def test_bad_addresses_are_refused(ip):
    with pytest.raises(ValueError):
        udp.UdpFace().open(ip)


def test_an_address_of_another_machine_cannot_be_bound():
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        udp.UdpFace().open("192.0.2.1")

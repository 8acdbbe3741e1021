"""One worker for real: thread, sockets, commands and events, and what it leaves behind."""

import ctypes
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relaycore import worker
from relaycore.worker import EventKind, MailboxFull, Worker
from tests.support.peer import MediaPeer, stun_check

E_UNKNOWN_TRANSPORT, E_UNKNOWN_STREAM, E_UNKNOWN_PEER, E_STATE = -15, -16, -14, -18
UFRAG, PASSWORD = "abcd", "p" * 22
VP8 = (96, "vp8", 90000, 97)


class Running:
    """A worker with a queue of events and one remote socket."""

    def __init__(self, addresses=(("127.0.0.1", 0),)):
        self.worker = Worker(addresses, seed=1, large_slots=512, small_slots=512)
        self.worker.start()
        self.events: list[tuple] = []
        self.remote = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.remote.bind(("127.0.0.1", 0))
        self.remote.settimeout(5)
        self.address = ("127.0.0.1", self.worker.sockets[0]["port"])

    def close(self) -> None:
        self.worker.stop()
        self.remote.close()

    def wait(self, match, timeout_s: float = 5.0):
        """Return the first event that `match` accepts, taking what comes."""
        until = time.monotonic() + timeout_s
        while True:
            for event in self.events:
                if match(event):
                    self.events.remove(event)
                    return event
            assert time.monotonic() < until, f"only {self.events}"
            select.select([self.worker.event_fd], [], [], 0.2)
            self.events += self.worker.take_events()

    def code(self, number: int) -> int:
        return self.wait(lambda e: e[0] == EventKind.ACK and e[1] == number)[2]

    def check(self, ufrag: str = UFRAG, password: str = PASSWORD, **options) -> bytes:
        """Send one ICE check and return the answer."""
        self.remote.sendto(stun_check(ufrag, password, **options), self.address)
        return self.remote.recv(2000)


@pytest.fixture
def running():
    run = Running()
    yield run
    run.close()


# Asks for 1.5 s and prints when (ns) and how long (ns) each answer took.
ASK = """
import socket, sys, time
from tests.support.peer import stun_check
ip, port, ufrag, password = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
print("asking", flush=True)
until = time.monotonic() + 1.5
while time.monotonic() < until:
    asked = time.monotonic_ns()
    s.sendto(stun_check(ufrag, password), (ip, int(port)))
    s.recv(2000)
    print(asked, time.monotonic_ns() - asked)
    time.sleep(0.01)
"""
# Sends checks for nobody as fast as it can for 0.5 s, then prints how many.
FLOOD = """
import socket, sys, time
from tests.support.peer import stun_check
ip, port, _, password = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram = stun_check("nobody", password)
sent = 0
until = time.monotonic() + 0.5
while time.monotonic() < until:
    s.sendto(datagram, (ip, int(port)))
    sent += 1
print(sent)
"""
ROOT = Path(__file__).parents[3]


def in_another_process(code: str, address: tuple[str, int]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, address), UFRAG, PASSWORD],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        text=True,
    )


def threads() -> list[str]:
    names = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read().strip())
    return names


def test_stop_leaves_no_thread_no_descriptor_no_slot_no_socket():
    before, fds = worker.leaks(), set(os.listdir("/proc/self/fd"))
    w = Worker([("127.0.0.1", 0), ("::1", 0)], seed=1, index=7)
    w.start()
    port = w.sockets[0]["port"]
    assert "veil-worker-7" in threads()
    assert worker.leaks() == {**before, "workers": before["workers"] + 1, "fds": before["fds"] + 6}
    w.stop()
    assert "veil-worker-7" not in threads()
    assert worker.leaks() == before
    assert set(os.listdir("/proc/self/fd")) == fds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", port))
    w.stop()


def test_a_forgotten_worker_ends_with_its_object():
    before = worker.leaks()
    w = Worker([("127.0.0.1", 0)], seed=1)
    w.start()
    del w
    assert worker.leaks() == before


def test_slots_come_back_after_traffic(running):
    before = worker.leaks()["slots"]
    running.code(running.worker.add_transport(1, UFRAG, PASSWORD))
    running.check()
    for size in (0, 1, 20, 300, 1500):
        running.remote.sendto(b"\x80" * size, running.address)
    running.check()
    running.worker.stop()
    assert worker.leaks()["slots"] == before


def test_the_worker_blocks_signals_and_carries_its_name(running):
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as file:
            status = dict(line.split(":", 1) for line in file if ":" in line)
        if status["Name"].strip() == "veil-worker-0":
            # Everything that may be blocked is; the C library keeps its own real-time signals 32 and 33.
            assert int(status["SigBlk"], 16) | 1 << 31 | 1 << 32 | 1 << 8 | 1 << 18 == (1 << 64) - 1
            return
    pytest.fail("no thread of that name")


def test_an_idle_worker_sleeps(running):
    def switches() -> int:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/status") as file:
                status = dict(line.split(":", 1) for line in file if ":" in line)
            if status["Name"].strip() == "veil-worker-0":
                return int(status["voluntary_ctxt_switches"])
        raise AssertionError("no thread of that name")

    running.code(running.worker.ping())
    before = switches()
    time.sleep(0.2)
    assert switches() - before <= 1


def test_a_start_that_fails_gives_everything_back(running):
    before = worker.leaks()
    taken = Worker([("127.0.0.1", 0), ("127.0.0.1", running.address[1])], seed=1)
    with pytest.raises(OSError, match=rf"127\.0\.0\.1 port {running.address[1]}: .*in use"):
        taken.start()
    assert worker.leaks() == before
    with pytest.raises(RuntimeError):
        taken.ping()


def test_a_worker_starts_once(running):
    with pytest.raises(RuntimeError, match="once"):
        running.worker.start()
    running.worker.stop()
    with pytest.raises(RuntimeError, match="once"):
        running.worker.start()
    with pytest.raises(RuntimeError, match="does not run"):
        running.worker.take_events()


def test_every_command_is_answered_in_order(running):
    numbers = [running.worker.ping() for _ in range(300)]
    assert numbers == list(range(1, 301))
    running.code(300)
    assert [e for e in running.events if e[0] == EventKind.ACK] == [(EventKind.ACK, n, 0) for n in numbers[:-1]]


def test_events_beyond_the_limit_keep_the_descriptor_readable(running):
    for _ in range(10):
        running.worker.ping()
    taken = []
    while len(taken) < 10:
        assert select.select([running.worker.event_fd], [], [], 5)[0]
        taken += running.worker.take_events(3)
    assert len(taken) == 10
    assert not select.select([running.worker.event_fd], [], [], 0)[0]


def test_commands_about_nothing_are_refused(running):
    w = running.worker
    assert running.code(w.remove_transport(9)) == E_UNKNOWN_TRANSPORT
    assert running.code(w.set_ice(9, UFRAG, PASSWORD)) == E_UNKNOWN_TRANSPORT
    assert running.code(w.send_dtls(9, b"x")) == E_UNKNOWN_TRANSPORT
    assert running.code(w.add_receiver(9, 1, True, "0", [VP8])) == E_UNKNOWN_TRANSPORT
    assert running.code(w.remove_receiver(9)) == E_UNKNOWN_STREAM
    assert running.code(w.remove_egress(9)) == E_UNKNOWN_STREAM
    assert running.code(w.select_encoding(9, 0)) == E_UNKNOWN_STREAM
    assert running.code(w.request_keyframe(9, 0)) == E_UNKNOWN_STREAM


def test_a_check_is_answered_and_selects_its_address(running):
    assert running.code(running.worker.add_transport(5, UFRAG, PASSWORD)) == 0
    answer = running.check(transaction=b"transaction!")
    assert answer[:2] == b"\x01\x01"
    assert answer[8:20] == b"transaction!"
    event = running.wait(lambda e: e[0] == EventKind.ICE_SELECTED)
    assert event == (EventKind.ICE_SELECTED, 5, running.remote.getsockname())


def test_dtls_passes_both_ways_once_an_address_is_known(running):
    running.code(running.worker.add_transport(5, UFRAG, PASSWORD))
    assert running.code(running.worker.send_dtls(5, b"\x16too early")) == E_UNKNOWN_PEER
    running.check()
    running.remote.sendto(b"\x16hello", running.address)
    assert running.wait(lambda e: e[0] == EventKind.DTLS) == (EventKind.DTLS, 5, b"\x16hello")
    assert running.code(running.worker.send_dtls(5, b"\x16" + b"y" * 1199)) == 0
    assert running.remote.recv(2000) == b"\x16" + b"y" * 1199


def test_ipv6_transports_are_answered():
    run = Running(addresses=[("127.0.0.1", 0), ("::1", 0)])
    try:
        assert run.code(run.worker.add_transport(1, UFRAG, PASSWORD)) == 0
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
            s.bind(("::1", 0))
            s.settimeout(5)
            s.sendto(stun_check(UFRAG, PASSWORD), ("::1", run.worker.sockets[1]["port"]))
            assert s.recv(2000)[:2] == b"\x01\x01"
            selected = run.wait(lambda e: e[0] == EventKind.ICE_SELECTED)
            assert selected == (EventKind.ICE_SELECTED, 1, s.getsockname()[:2])
    finally:
        run.close()


def test_media_flows_from_publisher_to_subscriber(running, rng):
    w = running.worker
    publisher, subscriber = MediaPeer(rng), MediaPeer(rng)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(5)
        sockets = {1: running.remote, 2: other}
        for number, peer in ((1, publisher), (2, subscriber)):
            w.add_transport(number, peer.ufrag, peer.password)
            w.set_srtp(number, **peer.relay_keys())
        opus = (111, "opus", 48000, None)
        w.add_receiver(1, 3, False, "0", [opus], ssrcs=[1234])
        assert running.code(w.add_egress(2, 4, 3, 5678, None, "0", [opus], "cname", 0)) == 0
        for number, peer in ((1, publisher), (2, subscriber)):
            sockets[number].sendto(stun_check(peer.ufrag, peer.password), running.address)
            assert sockets[number].recv(2000)[:2] == b"\x01\x01"
        for seq in range(100, 120):
            packet = (
                bytes([0x80, 111]) + seq.to_bytes(2, "big") + bytes(4) + (1234).to_bytes(4, "big") + b"sound%d" % seq
            )
            sockets[1].sendto(publisher.protect(packet), running.address)
        while len(subscriber.rtp) < 20:
            subscriber.receive(other.recv(2000))
        assert [plain[12:] for plain in subscriber.rtp] == [b"sound%d" % seq for seq in range(100, 120)]
        assert {int.from_bytes(plain[8:12], "big") for plain in subscriber.rtp} == {5678}
    assert running.wait(lambda e: e[0] == EventKind.STREAM_BOUND) == (EventKind.STREAM_BOUND, 3, 0, 1234)
    running.code(w.request_snapshot())
    snapshot = w.snapshot()
    assert snapshot["found"] == (2, 1, 1, 0)
    assert snapshot["egresses"][0]["packets"] == 20
    assert snapshot["streams"][0]["ssrc"] == 1234
    assert snapshot["counters"]["rtp_forwarded"] == 20
    assert snapshot["counters"]["datagrams_sent"] >= 22
    sent = {int(t["transport"]): int(t["remote_port"]) for t in snapshot["transports"]}
    assert sent[1] == running.remote.getsockname()[1]


def test_time_alone_wakes_the_worker(running, rng):
    publisher = MediaPeer(rng)
    running.worker.add_transport(1, publisher.ufrag, publisher.password)
    running.worker.set_srtp(1, **publisher.relay_keys())
    assert running.code(running.worker.add_receiver(1, 3, True, "0", [VP8], ssrcs=[1234])) == 0
    running.check(publisher.ufrag, publisher.password)
    packet = bytes([0x80, 96, 0, 9]) + bytes(4) + (1234).to_bytes(4, "big") + b"\x10\x00frame"
    running.remote.sendto(publisher.protect(packet), running.address)
    running.wait(lambda e: e == (EventKind.ENCODING_ACTIVE, 3, 0))
    start = time.monotonic()
    running.wait(lambda e: e == (EventKind.ENCODING_SILENT, 3, 0))
    # Nothing for 1 s, noticed on a timer that goes once a second.
    assert 0.9 < time.monotonic() - start < 2.5


def test_commands_given_while_the_bell_is_held_wait_for_it_and_keep_their_order(running):
    running.worker.hold_bell()
    numbers = [running.worker.ping() for _ in range(3)]
    readable, _, _ = select.select([running.worker.event_fd], [], [], 0.2)
    assert not readable and running.worker.take_events() == []
    running.worker.ring()
    assert [running.code(number) for number in numbers] == [0, 0, 0]
    running.worker.hold_bell(False)
    assert running.code(running.worker.ping()) == 0


def test_a_python_that_holds_the_gil_does_not_stall_the_worker(running):
    running.code(running.worker.add_transport(5, UFRAG, PASSWORD))
    running.check()
    # A child process has a GIL of its own and measures from outside while ours is held.
    child = in_another_process(ASK, running.address)
    assert child.stdout.readline() == "asking\n"
    start = time.monotonic_ns()
    ctypes.PyDLL(None).usleep(1_000_000)
    end = time.monotonic_ns()
    answers = [tuple(map(int, line.split())) for line in child.communicate(timeout=20)[0].splitlines()]
    assert child.returncode == 0
    # CLOCK_MONOTONIC is the same in both processes.
    inside = [waited for asked, waited in answers if start < asked < end - 200_000_000]
    assert len(inside) >= 30
    assert max(inside) < 200_000_000


def test_too_many_unanswered_commands_are_refused_not_lost(running):
    numbers = []
    with pytest.raises(MailboxFull):
        while True:
            numbers.append(running.worker.ping())
    assert len(numbers) == 1023
    assert running.worker.free_places == 0
    running.code(numbers[-1])
    assert running.worker.free_places == 1023
    assert running.code(running.worker.ping()) == 0


def test_a_full_ring_can_still_be_stopped(running):
    while running.worker.free_places:
        running.worker.ping()
    number = running.worker.request_stop()
    assert running.code(number) == 0
    running.wait(lambda e: e == (EventKind.STOPPED,))


def test_commands_behind_a_stop_do_not_run_and_leak_nothing(running):
    stop = running.worker.request_stop()
    for _ in range(10):
        running.worker.send_dtls(1, b"x" * 1000)
    running.wait(lambda e: e == (EventKind.STOPPED,))
    assert [e for e in running.events if e[0] == EventKind.ACK] == [(EventKind.ACK, stop, 0)]
    running.worker.stop()


def test_a_flood_of_datagrams_does_not_starve_commands(running):
    child = in_another_process(FLOOD, running.address)
    pings = 0
    while child.poll() is None:
        start = time.monotonic()
        assert running.code(running.worker.ping()) == 0
        assert time.monotonic() - start < 1
        pings += 1
    sent = int(child.communicate(timeout=20)[0])
    assert pings > 20
    running.code(running.worker.request_snapshot())
    counters = running.worker.snapshot()["counters"]
    assert sent > 1000
    assert counters["stun_refused"] + counters["receive_overflow"] > 0.9 * sent


def test_snapshots_say_when_they_were_too_small(running):
    for number in range(1, 6):
        running.worker.add_transport(number, f"uf{number:02d}", PASSWORD)
    running.code(running.worker.request_snapshot(2, 0, 0))
    snapshot = running.worker.snapshot()
    assert snapshot["found"] == (5, 0, 0, 0)
    assert len(snapshot["transports"]) == 2
    running.code(running.worker.request_snapshot(5, 1, 1))
    assert sorted(running.worker.snapshot()["transports"]["transport"]) == [1, 2, 3, 4, 5]


def test_one_snapshot_at_a_time(running):
    with pytest.raises(RuntimeError, match="no answered"):
        running.worker.snapshot()
    number = running.worker.request_snapshot()
    with pytest.raises(RuntimeError, match="on its way"):
        running.worker.request_snapshot()
    with pytest.raises(RuntimeError, match="no answered"):
        running.worker.snapshot()
    running.code(number)
    assert running.worker.snapshot()["counters"]["datagrams_received"] == 0


KEYS = (b"k" * 16, b"s" * 12, b"K" * 16, b"S" * 12)


@pytest.mark.parametrize(
    ("method", "arguments", "why"),
    [
        ("add_transport", (0, UFRAG, PASSWORD), "transport"),
        ("add_transport", (2**32, UFRAG, PASSWORD), "transport"),
        ("add_transport", ("1", UFRAG, PASSWORD), "transport"),
        ("add_transport", (1, "abc", PASSWORD), "ufrag"),
        ("add_transport", (1, "a" * 65, PASSWORD), "ufrag"),
        ("add_transport", (1, UFRAG, "p" * 21), "password"),
        ("add_transport", (1, UFRAG, "p" * 129), "password"),
        ("set_srtp", (1, 2, *KEYS), "profile"),
        ("set_srtp", (1, 7, b"k" * 15, *KEYS[1:]), "receive_key"),
        ("set_srtp", (1, 7, *KEYS[:3], b"s" * 14), "send_salt"),
        ("set_extensions", (1, {"urn:a": 15}), "15"),
        ("set_extensions", (1, {"urn:a": 0}), "0"),
        ("set_extensions", (1, {"urn:a": 256}), "256"),
        ("set_extensions", (1, {"urn:a": 1, "urn:b": 1}), "twice"),
        ("send_dtls", (1, b""), "0 bytes"),
        ("send_dtls", (1, b"x" * 1601), "1601 bytes"),
        ("add_receiver", (1, 0, True, "0", [VP8]), "receiver"),
        ("add_receiver", (1, 1, True, "m" * 17, [VP8]), "mid"),
        ("add_receiver", (1, 1, True, "0", []), "0 codecs"),
        ("add_receiver", (1, 1, True, "0", [VP8] * 17), "17 codecs"),
        ("add_receiver", (1, 1, True, "0", [(96, "vp10", 90000, None)]), "vp10"),
        ("add_receiver", (1, 1, True, "0", [(72, "vp8", 90000, None)]), "72"),
        ("add_receiver", (1, 1, True, "0", [(128, "vp8", 90000, None)]), "128"),
        ("add_receiver", (1, 1, True, "0", [(96, "vp8", 90000, 96)]), "twice"),
        ("add_receiver", (1, 1, True, "0", [(96, "vp8", 0, None)]), "clock"),
        ("add_receiver", (1, 1, True, "0", [VP8], ["a", "b", "c", "d", "e"]), "rids"),
        ("add_receiver", (1, 1, True, "0", [VP8], ["a", "a"]), "rids"),
        ("add_receiver", (1, 1, True, "0", [VP8], [""]), "rid"),
        ("add_receiver", (1, 1, True, "0", [VP8], [], list(range(1, 10))), "SSRC"),
        ("add_receiver", (1, 1, True, "0", [VP8], [], [1], [2, 3]), "SSRC"),
        ("add_egress", (1, 1, 1, 0, None, "0", [VP8], "c", 0), "SSRC"),
        ("add_egress", (1, 1, 1, 5, 5, "0", [VP8], "c", 0), "own"),
        ("add_egress", (1, 1, 1, 5, None, "0", [VP8], "", 0), "cname"),
        ("add_egress", (1, 1, 1, 5, None, "0", [VP8], "c" * 65, 0), "cname"),
        ("add_egress", (1, 1, 1, 5, None, "0", [VP8], "c", 4), "encoding"),
        ("select_encoding", (1, -1), "encoding"),
        ("request_keyframe", (1, None), "encoding"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_queued(running, method, arguments, why):
    free = running.worker.free_places
    with pytest.raises(ValueError, match=why):
        getattr(running.worker, method)(*arguments)
    assert running.worker.free_places == free


@pytest.mark.parametrize(
    "options",
    [
        {"addresses": []},
        {"addresses": [("127.0.0.1", 0)] * 17},
        {"addresses": [("nowhere", 0)]},
        {"addresses": [("127.0.0.1", 65536)]},
        {"backend": "fast"},
        {"seed": -1},
        {"seed": 1 << 64},
        {"large_slots": 10},
        {"socket_buffer_bytes": 1},
    ],
)
def test_wrong_settings_are_refused(options):
    with pytest.raises(ValueError):
        Worker(**{"addresses": [("127.0.0.1", 0)], "seed": 1, **options})

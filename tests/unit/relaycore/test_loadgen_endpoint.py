"""What a load endpoint does besides media: ICE, datagrams of DTLS, arguments, statistics, and what it says of itself."""

import hashlib
import hmac
import random
import select
import struct
import time

import numpy as np
import pytest

from relaycore import lgstats, stun
from relaycore.loadgen import BUCKETS, HISTOGRAM_EDGES_NS, EventKind, LoadGenerator, percentile
from tests.support.load_mirror import Mirror, Side
from tests.support.peer import stun_check

OPUS = ((111, "opus", 48_000, None),)


def is_signed(answer: bytes, password: str) -> bool:
    """Whether MESSAGE-INTEGRITY of a message that ends with it and FINGERPRINT is right (RFC 8489 section 14.5)."""
    signed = answer[:2] + struct.pack("!H", len(answer) - 20 - 8) + answer[4:-32]
    return hmac.new(password.encode(), signed, hashlib.sha1).digest() == answer[-28:-8]


def take(load: LoadGenerator, kind: EventKind, timeout_s: float = 5.0) -> tuple:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        select.select([load.event_fd], [], [], 0.1)
        for event in load.take_events():
            if event[0] == kind:
                return event
    raise TimeoutError(kind.name)


@pytest.fixture
def side():
    made = Side(random.Random(1))
    made.socket.settimeout(5)
    yield made
    made.socket.close()


@pytest.mark.parametrize("drain", ["eager", "lazy"])
def test_checks_are_what_an_ice_lite_relay_expects(side, drain):
    with LoadGenerator(1, drain=drain) as load:
        endpoint = load.add_endpoint(*side.arguments)
        request, address = side.socket.recvfrom(2000)
        assert address == load.local_address(endpoint)
        parsed = stun.parse(request)
        assert parsed["username"] == f"{side.ufrag}:{side.their_ufrag}".encode()
        assert parsed["use_candidate"] and parsed["role"] == "controlling" and parsed["has_fingerprint"]
        assert stun.is_authentic(request, side.password.encode())
        # Unanswered, it is repeated under another transaction.
        again = side.socket.recv(2000)
        assert again[8:20] != request[8:20]
        # An answer that the password did not sign connects nothing.
        side.socket.sendto(stun.success(again[8:20], bytes(4), 1, b"x" * 22), address)
        side.answer(side.socket.recv(2000), address)
        event = take(load, EventKind.ICE_CONNECTED)
        assert event[1] == endpoint
        row = load.stats()["endpoints"][0]
        assert row["connected"] and row["checks_answered"] == 1 and row["stun_refused"] == 1 and row["rtt_ns"] > 0


def test_checks_of_the_other_side_are_answered(side):
    with LoadGenerator(1, drain="eager") as load:
        endpoint = load.add_endpoint(*side.arguments)
        address = load.local_address(endpoint)
        side.socket.sendto(stun_check(side.their_ufrag, side.their_password, controlling=False), address)
        side.socket.sendto(stun_check(side.their_ufrag, "y" * 22, controlling=False), address)
        answers = []
        while not answers:
            datagram = side.socket.recv(2000)
            if struct.unpack_from("!H", datagram)[0] == 0x0101:
                answers.append(datagram)
        assert is_signed(answers[0], side.their_password)
        time.sleep(0.05)
        row = load.stats()["endpoints"][0]
        assert row["requests_answered"] == 1 and row["stun_refused"] == 1


def test_a_controlled_endpoint_waits_for_the_nomination(side):
    with LoadGenerator(1, drain="eager") as load:
        endpoint = load.add_endpoint(*side.arguments, controlling=False)
        address = load.local_address(endpoint)
        request = side.socket.recv(2000)
        assert not stun.parse(request)["use_candidate"] and stun.parse(request)["role"] == "controlled"
        side.answer(request, address)
        time.sleep(0.05)
        assert not load.stats()["endpoints"]["connected"][0]
        side.socket.sendto(stun_check(side.their_ufrag, side.their_password, controlling=True), address)
        assert take(load, EventKind.ICE_CONNECTED)[1] == endpoint


def test_a_remote_may_come_later_and_anew(side):
    with LoadGenerator(1, drain="eager") as load:
        local_ip, remote, ufrag, password, their_ufrag, their_password = side.arguments
        endpoint = load.add_endpoint(local_ip, None, ufrag, password)
        with pytest.raises(RuntimeError):
            load.send_datagram(endpoint, b"\x16")
        load.set_ice(endpoint, remote, their_ufrag, their_password)
        side.answer(*side.socket.recvfrom(2000))
        take(load, EventKind.ICE_CONNECTED)
        load.set_ice(endpoint, remote, "abcd", "z" * 22, local_ufrag="efgh", local_password="q" * 22)
        while True:
            parsed = stun.parse(side.socket.recv(2000))
            if parsed["username"] == b"abcd:efgh":
                break
        assert not load.stats()["endpoints"]["connected"][0]


def test_dtls_datagrams_pass_both_ways_whole(side):
    with LoadGenerator(1, drain="eager") as load:
        endpoint = load.add_endpoint(*side.arguments)
        address = side.socket.recvfrom(2000)[1]
        sent = [bytes([first]) + random.Random(first).randbytes(1200) for first in (20, 22, 63)]
        for datagram in sent:
            side.socket.sendto(datagram, address)
        # Neither DTLS nor anything else we know.
        side.socket.sendto(b"\x40" * 30, address)
        got = []
        while len(got) < 3:
            select.select([load.event_fd], [], [], 1)
            got += [event for event in load.take_events(1) if event[0] == EventKind.DATAGRAM]
        assert [event[4] for event in got] == sent and {event[1] for event in got} == {endpoint}
        assert load.send_datagram(endpoint, sent[0])
        while side.socket.recv(2000) != sent[0]:
            pass
        counters = load.stats()["counters"]
        assert counters["malformed"] == 1


def test_endpoints_are_spread_over_threads_and_all_of_them_work():
    mirrors = [Mirror(seed=n) for n in range(3)]
    load = LoadGenerator(1, threads=3)
    for mirror in mirrors:
        for endpoint, side in ((load.add_endpoint(*side.arguments), side) for side in (mirror.left, mirror.right)):
            load.set_srtp(endpoint, *side.keys)
            if side is mirror.left:
                load.add_sender(endpoint, "audio", 5, 111)
            else:
                load.add_receiver(endpoint, "audio", OPUS)
    with load:
        time.sleep(0.5)
        found = load.stats()
    for mirror in mirrors:
        mirror.close()
    assert sorted(found["endpoints"]["thread"]) == [0, 0, 1, 1, 2, 2]
    assert len(found["threads"]) == 3 and (found["threads"]["endpoints"] == 2).all()
    assert (found["receivers"]["frames_complete"] > 5).all() and not found["receivers"]["lost"].any()


def test_a_window_begins_at_zero_and_streams_go_on():
    mirror = Mirror()
    load = LoadGenerator(1, drain="eager")
    sender, receiver = (load.add_endpoint(*side.arguments) for side in (mirror.left, mirror.right))
    load.set_srtp(sender, *mirror.left.keys)
    load.set_srtp(receiver, *mirror.right.keys)
    voice = load.add_sender(sender, "audio", 5, 111)
    load.add_receiver(receiver, "audio", OPUS)
    with load:
        time.sleep(0.3)
        load.set_sender(voice, False)
        time.sleep(0.05)
        load.reset_stats()
        found = load.stats()
        assert not found["receivers"]["packets"].any() and not found["delay"].any() and not found["senders"]["frames"].any()
        load.set_sender(voice, True)
        time.sleep(0.3)
        load.set_sender(voice, False)
        time.sleep(0.05)
        found = load.stats()
    mirror.close()
    assert found["receivers"]["frames_complete"][0] == found["senders"]["frames"][0] > 5
    assert found["receivers"]["lost"][0] == 0


@pytest.mark.parametrize("spec, word", [
    (dict(kind="audio", ssrc=0), "SSRC"),
    (dict(kind="audio", ssrc=1, payload_type=70), "payload type"),
    (dict(kind="audio", ssrc=1, codec="vp8"), "codec"),
    (dict(kind="audio", ssrc=1, burst=8), "burst"),
    (dict(kind="tone", ssrc=1), "tone"),
    (dict(kind="video", ssrc=1, rtx_ssrc=2), "rtx_payload_type"),
    (dict(kind="video", ssrc=1, fps=1000), "fps"),
    (dict(kind="video", ssrc=1, temporal_layers=4), "temporal_layers"),
    (dict(kind="video", ssrc=1, encodings=[dict(ssrc=1)]), "encodings"),
    (dict(kind="video", ssrc=None, encodings=[dict(ssrc=1, codec="vp8")]), "codec"),
    (dict(kind="burst", ssrc=1, packet_bytes=1500), "packet_bytes"),
])
def test_wrong_arguments_are_named(spec, word):
    load = LoadGenerator(1)
    endpoint = load.add_endpoint("127.0.0.1", None, "abcd", "p" * 22)
    spec = {"payload_type": 96, **spec}
    with pytest.raises(ValueError, match=word):
        load.add_sender(endpoint, spec.pop("kind"), spec.pop("ssrc"), spec.pop("payload_type"), **spec)
    assert len(load.stats()["senders"]) == 0


def test_wrong_endpoints_leave_nothing():
    load = LoadGenerator(1)
    for arguments, error in ((("127.0.0.1", ("127.0.0.1", 0), "abcd", "p" * 22, "abcd", "p" * 22), ValueError),
                             (("127.0.0.1", ("::1", 9), "abcd", "p" * 22, "abcd", "p" * 22), ValueError),
                             (("127.0.0.1", ("127.0.0.1", 9), "a", "p" * 22, "abcd", "p" * 22), ValueError),
                             (("127.0.0.1", ("127.0.0.1", 9), "abcd", "p" * 22, "abcd", "short"), ValueError),
                             (("192.0.2.77", None, "abcd", "p" * 22), OSError)):
        with pytest.raises(error):
            load.add_endpoint(*arguments)
    assert len(load.stats()["endpoints"]) == 0


# --- histograms and the verdict ---------------------------------------------------------------------------------------


def test_histogram_buckets_hold_what_their_edges_say():
    assert len(HISTOGRAM_EDGES_NS) == BUCKETS + 1 and (np.diff(HISTOGRAM_EDGES_NS) > 0).all()
    for bucket in range(BUCKETS):
        assert lgstats.bucket_of(int(HISTOGRAM_EDGES_NS[bucket])) == bucket
        assert lgstats.bucket_of(int(HISTOGRAM_EDGES_NS[bucket + 1]) - 1) == bucket
    assert lgstats.bucket_of(-5) == 0 and lgstats.bucket_of(1 << 62) == BUCKETS - 1
    wide = HISTOGRAM_EDGES_NS[33:]
    assert (np.diff(wide) / wide[:-1]).max() <= 1 / 32


def test_percentiles_are_within_a_bucket():
    values = np.random.default_rng(1).lognormal(13, 1, 20_000).astype(np.int64)
    counts = np.zeros(BUCKETS, np.uint32)
    for value in values:
        counts[lgstats.bucket_of(int(value))] += 1
    for q in (1, 50, 99, 99.9, 100):
        assert percentile(counts, q) == pytest.approx(np.percentile(values, q, method="inverted_cdf"), rel=1 / 30)
    assert percentile(np.zeros((3, BUCKETS)), 50) is None


def healthy() -> dict:
    load = LoadGenerator(1)
    load.add_endpoint("127.0.0.1", None, "abcd", "p" * 22)
    found = load.stats()
    found["threads"] = found["threads"].copy()
    found["threads"]["wall_ns"] = 1_000_000_000
    return found


def test_an_idle_generator_was_no_bottleneck():
    assert lgstats.verdict(healthy(), 2.0, True) == {"was_bottleneck": False, "reasons": []}


@pytest.mark.parametrize("change, word", [
    (lambda s: s["endpoints"]["receive_overflow"].__setitem__(0, 3), "SO_RXQ_OVFL"),
    (lambda s: s["endpoints"]["refused"].__setitem__(0, 3), "refused"),
    (lambda s: s["counters"].update(frames_skipped=1), "schedule"),
    (lambda s: s["counters"].update(hold_exhausted=1), "hold_slots"),
    (lambda s: s["counters"].update(events_dropped=1), "events"),
    (lambda s: s["counters"].update(clock_steps=1), "clock"),
    (lambda s: s["lateness"].__setitem__((0, lgstats.bucket_of(6_000_000)), 5), "sent late"),
    (lambda s: s["drain_gap"].__setitem__((0, lgstats.bucket_of(15_000_000)), 5), "drained late"),
    (lambda s: s["threads"]["cpu_ns"].__setitem__(0, 900_000_000), "busy"),
    (lambda s: s["threads"]["wait_ns"].__setitem__(0, 300_000_000), "waited for a processor"),
])
def test_each_limit_of_the_generator_is_a_reason(change, word):
    found = healthy()
    change(found)
    told = lgstats.verdict(found, 2.0, True)
    assert told["was_bottleneck"] and len(told["reasons"]) == 1 and word in told["reasons"][0]

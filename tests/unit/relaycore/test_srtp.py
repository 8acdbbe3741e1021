"""SRTP: the standard's vectors, an independent implementation, and the index rules under replay and wrap-around."""

import random
import struct
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

import pylibsrtp
import pytest

from relaycore.cipher import backend_name
from relaycore.srtp import DEBUG_TWIN, SrtpSession, derive_session_keys

VECTORS = Path(__file__).parents[2] / "vectors/srtp"
RFC3711 = tomllib.loads((VECTORS / "rfc3711.toml").read_text())
RFC7714 = tomllib.loads((VECTORS / "rfc7714.toml").read_text())

CM, GCM128, GCM256 = 1, 7, 8
PROFILES = {CM: (16, 14), GCM128: (16, 12), GCM256: (32, 12)}
BACKENDS = [b for b in (1, 2) if backend_name(b) != "unavailable"]
EACH = list(product(PROFILES, BACKENDS))
E_SHORT, E_AUTH, E_REPLAY, E_TOO_OLD, E_INDEX_REUSED, E_KEY_EXHAUSTED = -1, -7, -8, -9, -10, -11
E_NO_SPACE, E_LIMIT, E_INVALID = -12, -17, -19
WRAP_STARTS = [0, 1, 127, 128, 32767, 32768, 65534, 65535]
SSRC = 0x5501A0B2


def rtp(seq, payload=b"payload", ssrc=SSRC):
    return struct.pack("!BBHII", 0x80, 96, seq & 0xFFFF, 1234, ssrc) + payload


def rtcp(ssrc=SSRC, body=b"report bytes"):
    return struct.pack("!BBHI", 0x81, 200, (len(body) + 4) // 4, ssrc) + body


def master(profile, seed=1):
    rng = random.Random(seed * 100 + profile)
    key_bytes, salt_bytes = PROFILES[profile]
    return rng.randbytes(key_bytes), rng.randbytes(salt_bytes)


def pair(profile, backend=0, seed=1):
    return SrtpSession(profile, *master(profile, seed), backend), SrtpSession(profile, *master(profile, seed), backend)


def libsrtp(profile, inbound):
    policy = pylibsrtp.Policy(
        key=b"".join(master(profile)),
        ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND if inbound else pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
        srtp_profile=profile,
    )
    policy.window_size = 1024
    return pylibsrtp.Session(policy)


# The standards' own bytes


def test_session_keys_are_derived_as_in_rfc_3711_b3():
    v = RFC3711["derivation"]
    keys = derive_session_keys(CM, bytes.fromhex(v["master_key"]), bytes.fromhex(v["master_salt"]))
    assert {name: keys["rtp_" + name].hex() for name in ("encryption", "salt", "authentication")} == {
        name: v[name] for name in ("encryption", "salt", "authentication")
    }
    assert len(set(keys.values())) == 6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("v", RFC7714["packets"], ids=lambda v: v["source"].split()[3])
def test_packets_are_those_of_rfc_7714(v, backend):
    def session():
        key, salt = bytes.fromhex(v["key"]), bytes.fromhex(RFC7714["salt"])
        s = SrtpSession(v["profile"], key, salt, backend, derive=False)
        s.next_rtcp_index = RFC7714["rtcp_index"]
        return s

    protected, plain = bytes.fromhex(v["protected"]), bytes.fromhex(RFC7714[v["kind"].removesuffix("_clear")])
    if v["kind"] == "rtp":
        assert session().protect(plain) == protected
        assert session().unprotect(protected) == plain
    else:
        assert session().unprotect_rtcp(protected) == plain
        if v["kind"] == "rtcp":
            assert session().protect_rtcp(plain) == protected


# An independent implementation


@pytest.mark.parametrize(("profile", "backend"), EACH)
def test_libsrtp_reads_our_packets_and_we_read_its(profile, backend):
    ours_tx, ours_rx = pair(profile, backend)
    theirs_tx, theirs_rx = libsrtp(profile, inbound=False), libsrtp(profile, inbound=True)
    rng = random.Random(profile)
    for i in range(300):
        plain = rtp(65400 + i, rng.randbytes(rng.randrange(1200)))     # passes the wrap, so the rollover count counts
        assert theirs_rx.unprotect(ours_tx.protect(plain)) == plain
        assert ours_rx.unprotect(theirs_tx.protect(plain)) == plain
        report = rtcp(SSRC + i % 3, rng.randbytes(4 * rng.randrange(1, 60)))
        assert theirs_rx.unprotect_rtcp(ours_tx.protect_rtcp(report)) == report
        assert ours_rx.unprotect_rtcp(theirs_tx.protect_rtcp(report)) == report


@pytest.mark.parametrize("profile", PROFILES)
def test_the_clear_header_may_carry_csrcs_and_an_extension(profile):
    head = struct.pack("!BBHII", 0x91, 96, 7, 1234, SSRC) + b"CSRC" + bytes.fromhex("bede0001") + b"ext!"
    ours, _ = pair(profile)
    sealed = ours.protect(head + b"frame", header_bytes=len(head))
    assert sealed[: len(head)] == head
    assert libsrtp(profile, inbound=True).unprotect(sealed) == head + b"frame"


@pytest.mark.skipif(len(BACKENDS) < 2, reason="one backend only")
@pytest.mark.parametrize("profile", PROFILES)
def test_the_backends_agree_on_packets_of_every_size(profile):
    rng = random.Random(profile)
    first, second = (SrtpSession(profile, *master(profile), b) for b in BACKENDS)
    reader = [SrtpSession(profile, *master(profile), b) for b in BACKENDS]
    for n in range(1501):
        plain = rtp(n, rng.randbytes(n))
        sealed = first.protect(plain)
        assert sealed == second.protect(plain)
        assert [r.unprotect(sealed) for r in reader] == [plain, plain]


# Indexes


@pytest.mark.parametrize("start", WRAP_STARTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_stream_survives_two_wraps_from_any_start(profile, start):
    tx, rx = pair(profile)
    # Jumps of 20,000 pass the wrap quickly and still leave no doubt about the rollover count.
    for index in [start + step * 20_000 + i for step in range(8) for i in (0, 1, 2)]:
        assert rx.unprotect(tx.protect(rtp(index), index)) == rtp(index)
        assert rx.rx_state(SSRC)[:2] == (True, index)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("start", WRAP_STARTS)
def test_packets_out_of_order_over_the_rollover_are_each_accepted_once(start, profile):
    tx, rx = pair(profile)
    indexes = range(start, start + 1000)
    sealed = {i: tx.protect(rtp(i), i) for i in indexes}
    order = list(indexes)[1:]
    random.Random(start).shuffle(order)
    for i in [start, *order]:
        assert rx.unprotect(sealed[i]) == rtp(i), i
    for i in order:
        assert rx.unprotect(sealed[i]) == E_REPLAY


@pytest.mark.parametrize("start", [0, 1, 65535, 65536, 131071])
def test_what_lies_left_of_the_window_is_too_old_and_the_edge_is_not(start):
    tx, rx = pair(GCM128)
    sealed = {i: tx.protect(rtp(i), i) for i in range(start, start + 1026)}
    # A first packet with rollover count 0, then on to where the table wants to be.
    for step in range(0, start, 30_000):
        rx.unprotect(SrtpSession(GCM128, *master(GCM128)).protect(rtp(step), step))
    assert rx.unprotect(sealed[start + 1025]) == rtp(start + 1025)
    assert rx.unprotect(sealed[start + 2]) == rtp(start + 2)
    assert rx.unprotect(sealed[start + 2]) == E_REPLAY
    assert rx.unprotect(sealed[start + 1]) == E_TOO_OLD
    assert rx.unprotect(sealed[start]) == E_TOO_OLD


@pytest.mark.parametrize("first", [0, 37])
@pytest.mark.parametrize("jump", [1, 2, 63, 64, 65, 130, 1000, 1023, 1024, 1025, 2048, 30_000])
def test_a_full_window_forgets_exactly_what_it_passes(jump, first):
    tx, rx = pair(GCM128)
    last = first + 1023
    for i in range(first, last + 1):
        assert rx.unprotect(tx.protect(rtp(i), i)) == rtp(i)
    top = last + jump
    assert rx.unprotect(tx.protect(rtp(top), top)) == rtp(top)
    # What was passed is free, once; what was seen and is still inside is not.
    for i in range(max(last + 1, top - 1023), top):
        sealed = tx.protect(rtp(i), i)
        assert (rx.unprotect(sealed), rx.unprotect(sealed)) == (rtp(i), E_REPLAY), i
    again = SrtpSession(GCM128, *master(GCM128))
    for i in range(max(first, top - 1023), last + 1):
        assert rx.unprotect(again.protect(rtp(i), i)) == E_REPLAY, i
    assert sum(b.bit_count() for b in rx.rx_state(SSRC)[2]) == 1024


def test_a_packet_before_the_first_rollover_is_refused():
    tx, rx = pair(GCM128)
    assert rx.unprotect(tx.protect(rtp(3), 3)) == rtp(3)
    assert rx.unprotect(tx.protect(rtp(65000), 65000)) == E_TOO_OLD


def test_streams_have_their_own_indexes():
    tx, rx = pair(GCM256)
    for ssrc in range(50):
        assert rx.unprotect(tx.protect(rtp(9, ssrc=ssrc))) == rtp(9, ssrc=ssrc)
        assert rx.unprotect(tx.protect(rtp(8, ssrc=ssrc), 8)) == rtp(8, ssrc=ssrc)


# What is not authentic changes nothing


@pytest.mark.parametrize(("profile", "backend"), EACH)
def test_tampering_with_any_byte_of_rtp_is_refused_and_leaves_no_trace(profile, backend):
    tx, rx = pair(profile, backend)
    assert rx.unprotect(tx.protect(rtp(65530))) == rtp(65530)
    before = rx.rx_state(SSRC)
    sealed = tx.protect(rtp(65535, b"twelve bytes"))
    for at, bit in product(range(len(sealed)), (1, 0x80)):
        bad = bytearray(sealed)
        bad[at] ^= bit
        # A changed seq or SSRC is another index or stream: refused all the same, before or by the tag.
        assert rx.unprotect(bytes(bad)) in (E_AUTH, E_TOO_OLD, E_REPLAY), at
        assert rx.rx_state(SSRC) == before, at
    for n in range(12, len(sealed)):
        assert rx.unprotect(sealed[:n]) in (E_AUTH, E_SHORT), n
    assert rx.rx_state(SSRC) == before
    assert rx.unprotect(sealed) == rtp(65535, b"twelve bytes")


@pytest.mark.parametrize(("profile", "backend"), EACH)
def test_tampering_with_any_byte_of_rtcp_is_refused(profile, backend):
    tx, rx = pair(profile, backend)
    first, second = tx.protect_rtcp(rtcp()), tx.protect_rtcp(rtcp())
    assert rx.unprotect_rtcp(first) == rtcp()
    for at, bit in product(range(len(second)), (1, 0x80)):
        bad = bytearray(second)
        bad[at] ^= bit
        assert rx.unprotect_rtcp(bytes(bad)) in (E_AUTH, E_REPLAY), at
    for n in range(len(second)):
        assert rx.unprotect_rtcp(second[:n]) in (E_AUTH, E_SHORT), n
    assert rx.unprotect_rtcp(second) == rtcp()
    assert rx.unprotect_rtcp(second) == E_REPLAY


@pytest.mark.parametrize("profile", PROFILES)
def test_other_keys_open_nothing(profile):
    tx, _ = pair(profile, seed=1)
    _, rx = pair(profile, seed=2)
    assert rx.unprotect(tx.protect(rtp(1))) == E_AUTH
    assert rx.unprotect_rtcp(tx.protect_rtcp(rtcp())) == E_AUTH


# RTCP


@pytest.mark.parametrize("profile", PROFILES)
def test_rtcp_senders_are_counted_apart_as_libsrtp_counts_them(profile):
    _, rx = pair(profile)
    theirs = libsrtp(profile, inbound=False)
    for _ in range(5):
        for ssrc in (1, 2, 3):
            sealed = theirs.protect_rtcp(rtcp(ssrc))
            assert rx.unprotect_rtcp(sealed) == rtcp(ssrc)
            assert rx.unprotect_rtcp(sealed) == E_REPLAY


def test_rtcp_out_of_order_is_accepted_within_the_window_alone():
    tx, rx = pair(GCM128)
    sealed = [tx.protect_rtcp(rtcp()) for _ in range(1026)]
    assert rx.unprotect_rtcp(sealed[1025]) == rtcp()
    assert rx.unprotect_rtcp(sealed[2]) == rtcp()
    assert rx.unprotect_rtcp(sealed[1]) == E_TOO_OLD


def test_rtcp_senders_are_bounded_and_known_ones_go_on():
    tx, rx = pair(GCM128)
    for ssrc in range(1024):
        assert rx.unprotect_rtcp(tx.protect_rtcp(rtcp(ssrc))) == rtcp(ssrc)
    assert rx.unprotect_rtcp(tx.protect_rtcp(rtcp(5000))) == E_LIMIT
    assert rx.unprotect_rtcp(tx.protect_rtcp(rtcp(1023))) == rtcp(1023)


@pytest.mark.parametrize(("profile", "overhead"), [(CM, 14), (GCM128, 20), (GCM256, 20)])
def test_rtcp_needs_room_for_what_it_adds(profile, overhead):
    tx, _ = pair(profile)
    assert tx.protect_rtcp(rtcp(), spare=overhead - 1) == E_NO_SPACE
    assert tx.next_rtcp_index == 0
    assert len(tx.protect_rtcp(rtcp(), spare=overhead)) == len(rtcp()) + overhead
    assert tx.protect_rtcp(b"\x81\xc8\0\0abc") == E_SHORT


# Limits of sending


@pytest.mark.skipif(DEBUG_TWIN, reason="the debug twin aborts")
@pytest.mark.parametrize("profile", PROFILES)
def test_an_index_is_protected_once(profile):
    tx, _ = pair(profile)
    for index in (70_000, 69_999, 70_001):
        assert isinstance(tx.protect(rtp(index), index), bytes)
        assert tx.protect(rtp(index, b"other"), index) == E_INDEX_REUSED
    assert tx.protect(rtp(70_001 - 1024), 70_001 - 1024) == E_INDEX_REUSED
    assert isinstance(tx.protect(rtp(70_001 - 1023), 70_001 - 1023), bytes)
    assert isinstance(tx.protect(rtp(70_000, ssrc=1), 70_000), bytes)


@pytest.mark.skipif(not DEBUG_TWIN, reason="release counts and refuses")
def test_the_debug_twin_aborts_at_a_second_protect():
    program = (
        "from relaycore.srtp import SrtpSession as S; s = S(7, bytes(16), bytes(12));"
        "p = bytes.fromhex('80600001') + bytes(8);"
        "s.protect(p, 1); print('once', flush=True); s.protect(p, 1); print('twice')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-6, "once\n")


def test_an_index_that_is_not_the_headers_seq_is_refused():
    tx, _ = pair(GCM128)
    assert tx.protect(rtp(5), 6) == E_INVALID
    assert tx.protect(rtp(0xFFFF), -1) == E_INVALID
    assert tx.rtp_packets == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_keys_are_exhausted_at_2_48_rtp_and_2_31_rtcp_packets(profile):
    tx, rx = pair(profile)
    last = 2**48 - 1
    assert isinstance(tx.protect(rtp(last), last), bytes)
    assert tx.protect(rtp(last + 1), last + 1) == E_KEY_EXHAUSTED
    tx.rtp_packets = 2**48
    assert tx.protect(rtp(0, ssrc=77), 0) == E_KEY_EXHAUSTED
    tx.next_rtcp_index = 2**31 - 1
    assert rx.unprotect_rtcp(tx.protect_rtcp(rtcp())) == rtcp()
    assert tx.protect_rtcp(rtcp()) == E_KEY_EXHAUSTED


def test_unknown_profiles_and_wrong_lengths_are_refused():
    for profile, key, salt in ((2, 16, 14), (7, 16, 14), (7, 32, 12), (8, 16, 12), (1, 16, 12)):
        with pytest.raises(ValueError):
            SrtpSession(profile, bytes(key), bytes(salt))
    with pytest.raises(ValueError):
        SrtpSession(7, bytes(16), bytes(12), 9)

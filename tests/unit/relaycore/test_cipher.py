"""Both cipher backends compute the standard's bytes, agree on every size, and leave nothing unverified."""

import hashlib
import hmac
import random
import threading
import time
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relaycore.cipher import Aead, CounterMode, backend_name, keystream, sha1_tag, thread_managers

VECTORS = tomllib.loads((Path(__file__).parents[2] / "vectors/srtp/rfc3711.toml").read_text())
IPSEC_MB, OPENSSL = 1, 2
BACKENDS = [b for b in (IPSEC_MB, OPENSSL) if backend_name(b) != "unavailable"]
WHOLE_BUFFERS = random.Random(1).randbytes(1500)


def test_the_automatic_choice_is_one_of_the_backends_that_run_here():
    assert backend_name(0) == backend_name(BACKENDS[0])
    assert backend_name(OPENSSL) == "openssl"
    assert backend_name(9) == "unavailable"


@pytest.mark.parametrize("block", VECTORS["keystream"]["blocks"], ids=lambda b: b["counter"][-4:])
@pytest.mark.parametrize("backend", BACKENDS)
def test_counter_mode_gives_the_keystream_of_rfc_3711_b2(backend, block):
    mode = CounterMode(bytes.fromhex(VECTORS["keystream"]["key"]), backend)
    assert mode.crypt(bytes.fromhex(block["counter"]), bytes(16)).hex() == block["keystream"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_counter_mode_reaches_the_last_block_of_rfc_3711_b2_in_one_run(backend):
    mode = CounterMode(bytes.fromhex(VECTORS["keystream"]["key"]), backend)
    stream = mode.crypt(bytes.fromhex(VECTORS["keystream"]["first_block"]), bytes(0xFF02 * 16))
    for block in VECTORS["keystream"]["blocks"]:
        at = int(block["counter"][-4:], 16) * 16
        assert stream[at : at + 16].hex() == block["keystream"]


def test_key_derivation_keystream_takes_both_key_lengths_and_no_other():
    iv = bytes.fromhex(VECTORS["keystream"]["first_block"])
    assert keystream(bytes.fromhex(VECTORS["keystream"]["key"]), iv, 16).hex() == "e03ead0935c95e80e166b16dd92b4eb4"
    assert len(keystream(bytes(32), iv, 33)) == 33
    assert keystream(bytes(32), iv, 16) != keystream(bytes(16), iv, 16)
    with pytest.raises(ValueError):
        keystream(bytes(24), iv, 16)


@pytest.mark.parametrize("key_bytes", [16, 32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gcm_equals_an_independent_implementation_for_every_size(backend, key_bytes):
    rng = random.Random(key_bytes)
    key = rng.randbytes(key_bytes)
    ours, theirs = Aead(key, backend), AESGCM(key)
    for n in range(1501):
        iv, aad, text = rng.randbytes(12), rng.randbytes(rng.choice((12, 16, 20, 72))), WHOLE_BUFFERS[:n]
        sealed = ours.seal(iv, aad, text)
        assert sealed == theirs.encrypt(iv, text, aad), n
        assert ours.open(iv, aad, sealed) == text, n


@pytest.mark.skipif(len(BACKENDS) < 2, reason="one backend only")
def test_the_backends_agree_on_counter_mode_for_every_size():
    rng = random.Random(3)
    key = rng.randbytes(16)
    first, second = (CounterMode(key, b) for b in BACKENDS)
    for n in range(1501):
        iv = rng.randbytes(14) + bytes(2)
        assert first.crypt(iv, WHOLE_BUFFERS[:n]) == second.crypt(iv, WHOLE_BUFFERS[:n]), n


@pytest.mark.parametrize("n", [0, 1, 19, 55, 56, 63, 64, 65, 128, 1204])
def test_the_tag_is_hmac_sha1(n):
    assert sha1_tag(b"k" * 20, WHOLE_BUFFERS[:n]) == hmac.digest(b"k" * 20, WHOLE_BUFFERS[:n], hashlib.sha1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [0, 1, 64])
def test_any_changed_bit_is_refused_and_the_output_wiped(backend, n):
    key = Aead(bytes(16), backend)
    iv, aad = bytes(12), bytes(12)
    sealed = key.seal(iv, aad, WHOLE_BUFFERS[:n])
    for bit in range(len(sealed) * 8):
        bad = bytearray(sealed)
        bad[bit // 8] ^= 1 << bit % 8
        assert key.open(iv, aad, bytes(bad)) is None   # the face raises if bytes were left in the output
    assert key.open(iv, aad + b"\0", sealed) is None
    assert key.open(iv, aad, sealed) == WHOLE_BUFFERS[:n]


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_of_other_lengths_are_refused(backend):
    for n in (0, 15, 17, 24, 33):
        with pytest.raises(ValueError):
            Aead(bytes(n), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_thread_needed_goes_with_the_thread(backend):
    mode = CounterMode(bytes(16), backend)
    expected = mode.crypt(bytes(16), bytes(32))
    before = thread_managers()
    results = []

    def work():
        results.append((mode.crypt(bytes(16), bytes(32)), thread_managers()))

    for _ in range(20):
        t = threading.Thread(target=work)
        t.start()
        t.join()
        # Python's join returns a moment before the system's thread ends and frees what is its own.
        give_up = time.monotonic() + 10
        while thread_managers() != before and time.monotonic() < give_up:
            time.sleep(0.001)
        assert thread_managers() == before
    assert results == [(expected, before + (backend == IPSEC_MB))] * 20

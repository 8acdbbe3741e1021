"""STUN: RFC 5769's vectors, aioice as the other side, and what an attacker may send."""

import ipaddress
import struct
import zlib

import aioice.stun
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore import stun
from relaycore.errs import NAMES, WireError
from tests.support import vectors

PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
VECTORS = {vector.name: vector.data for vector in vectors.load("stun")}
REQUEST = VECTORS["rfc5769-request"]
TRANSACTION_ID = REQUEST[8:20]


def check(password: bytes = PASSWORD, **attributes) -> bytes:
    """A binding request as aioice makes it; attribute names with _ for -."""
    message = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    message.attributes = {name.replace("_", "-"): value for name, value in attributes.items()}
    message.add_message_integrity(password)
    return bytes(message)


def with_length(message: bytes) -> bytes:
    return message[:2] + struct.pack("!H", len(message) - 20) + message[4:]


def with_fingerprint(message: bytes) -> bytes:
    message = with_length(message + bytes(8))[:-8]
    return message + struct.pack("!HHI", 0x8028, 4, zlib.crc32(message) ^ 0x5354554E)


@pytest.mark.parametrize("vector", vectors.good("stun"), ids=str)
def test_good_request(vector):
    assert vectors.plain(stun.parse(vector.data)) == vector.expect


@pytest.mark.parametrize("vector", vectors.bad("stun"), ids=str)
def test_bad_request(vector):
    with pytest.raises(WireError, match=f"^{vector.error}$"):
        stun.parse(vector.data)


def test_the_rfcs_request_is_authentic_under_its_password_alone():
    assert stun.is_authentic(REQUEST, PASSWORD)
    for password in (b"", PASSWORD[:-1], PASSWORD + b"x", PASSWORD.lower()):
        assert not stun.is_authentic(REQUEST, password)


@pytest.mark.parametrize("name", ["chromium-check", "chromium-nomination", "firefox-nomination", "firefox-consent"])
def test_browsers_requests_are_authentic(name):
    assert stun.is_authentic(VECTORS[name], PASSWORD)
    assert not stun.is_authentic(VECTORS[name], PASSWORD[::-1])


@pytest.mark.parametrize("vector", vectors.good("stun"), ids=str)
def test_truncation_at_every_length_is_refused(vector):
    for length in range(len(vector.data)):
        with pytest.raises(WireError, match="^(E_SHORT|E_FORMAT)$"):
            stun.parse(vector.data[:length])


def test_truncation_with_a_length_that_agrees_is_never_authentic():
    for length in range(20, len(REQUEST), 4):
        cut = with_length(REQUEST[:length])
        try:
            assert stun.is_authentic(cut, PASSWORD) == (length == len(REQUEST) - 8)
        except WireError as error:
            assert error.code == NAMES["E_FORMAT"]


def test_every_bit_that_integrity_covers_counts():
    end = REQUEST.index(b"\x80\x28\x00\x04")
    for bit in range(8 * end):
        turned = bytearray(REQUEST)
        turned[bit // 8] ^= 0x80 >> bit % 8
        try:
            assert not stun.is_authentic(with_fingerprint(bytes(turned[:end])), PASSWORD) or bit // 8 in (2, 3)
        except WireError:
            pass


def test_a_request_without_integrity_is_not_authentic():
    assert not stun.is_authentic(VECTORS["request-empty"], PASSWORD)
    assert not stun.is_authentic(VECTORS["request-empty"], b"")


def test_integrity_still_holds_with_unsigned_attributes_behind_it():
    base = check(USERNAME="ab:cd", PRIORITY=7)[:-8]
    request = with_fingerprint(base + struct.pack("!HH", 0x0025, 0))
    assert stun.is_authentic(request, PASSWORD)
    assert not stun.parse(request)["use_candidate"]


@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
    st.text("abc+/", min_size=1, max_size=100),
    st.binary(min_size=1, max_size=128),
)
def test_what_aioice_sends_is_understood(priority, use_candidate, is_controlling, ufrag, password):
    attributes = {"USERNAME": f"{ufrag}:remote", "PRIORITY": priority}
    attributes["ICE-CONTROLLING" if is_controlling else "ICE-CONTROLLED"] = 2**64 - 1
    if use_candidate:
        attributes["USE-CANDIDATE"] = None
    request = check(password, **attributes)
    found = stun.parse(request)
    assert (found["priority"], found["use_candidate"], found["has_fingerprint"]) == (priority, use_candidate, True)
    assert found["role"] == ("controlling" if is_controlling else "controlled")
    assert found["username"][: found["local_ufrag_bytes"]] == ufrag.encode()
    assert stun.is_authentic(request, password)
    assert not stun.is_authentic(request, password + b"x")


@pytest.mark.parametrize("vector", ["rfc5769-response-ipv4", "rfc5769-response-ipv6"])
def test_the_mapped_address_is_written_as_in_the_rfcs_responses(vector):
    ip = ipaddress.ip_address("192.0.2.1" if vector.endswith("4") else "2001:db8:1234:5678:11:2233:4455:6677")
    answer = stun.success(TRANSACTION_ID, ip.packed, 32853, PASSWORD)
    length = 8 + len(ip.packed)
    at = VECTORS[vector].index(struct.pack("!HH", 0x0020, 4 + len(ip.packed)))
    assert answer[20 : 20 + length] == VECTORS[vector][at : at + length]


@given(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    st.integers(0, 65535),
    st.binary(min_size=12, max_size=12),
    st.binary(min_size=1, max_size=128),
)
def test_aioice_understands_the_success_response(ip, port, transaction_id, password):
    answer = aioice.stun.parse_message(stun.success(transaction_id, ip.packed, port, password))
    assert (answer.message_class, answer.transaction_id) == (aioice.stun.Class.RESPONSE, transaction_id)
    # Compared packed: aioice writes IPv4 inside IPv6 in its own way.
    assert ipaddress.ip_address(answer.attributes["XOR-MAPPED-ADDRESS"][0]).packed == ip.packed
    assert answer.attributes["XOR-MAPPED-ADDRESS"][1] == port
    assert answer.check_message_integrity(password)
    assert list(answer.attributes)[-1] == "FINGERPRINT"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(400, "Bad Request"), (401, "Unauthenticated"), (420, "Unknown Attribute"), (487, "Role Conflict")],
)
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_aioice_understands_the_error_response(code, reason, password):
    answer = aioice.stun.parse_message(stun.error(REQUEST, code, password))
    assert (answer.message_class, answer.transaction_id) == (aioice.stun.Class.ERROR, TRANSACTION_ID)
    assert answer.attributes["ERROR-CODE"] == (code, reason)
    assert answer.check_message_integrity(PASSWORD) == (password is not None)


def test_unknown_attributes_are_named_in_the_answer():
    answer = stun.error(VECTORS["request-unknown-attributes"], 420, PASSWORD)
    assert struct.pack("!HHHHHH", 0x000A, 6, 3, 0x79, 0x7A, 0) in answer


def test_of_many_unknown_attributes_four_are_kept():
    request = with_length(VECTORS["request-empty"] + b"".join(struct.pack("!HH", 0x70 + i, 0) for i in range(40)))
    assert stun.parse(request)["unknown_required"] == [0x70, 0x71, 0x72, 0x73]


def test_other_error_codes_are_refused():
    with pytest.raises(WireError, match="^E_INVALID$"):
        stun.error(REQUEST, 500, PASSWORD)


def test_a_message_beyond_one_mtu_is_refused():
    def software(size):
        return with_length(VECTORS["request-empty"] + struct.pack("!HH", 0x8022, size) + bytes(size))

    assert len(software(1476)) == 1500 and stun.parse(software(1476))
    with pytest.raises(WireError, match="^E_FORMAT$"):
        stun.parse(software(1480))


def test_answers_are_written_whole_or_not_at_all():
    unknown = VECTORS["request-unknown-attributes"]
    for build in (
        lambda cap: stun.success(TRANSACTION_ID, bytes(4), 1, PASSWORD, cap),
        lambda cap: stun.success(TRANSACTION_ID, bytes(16), 1, PASSWORD, cap),
        lambda cap: stun.error(unknown, 420, PASSWORD, cap),
        lambda cap: stun.error(REQUEST, 487, None, cap),
    ):
        whole = build(256)
        assert build(len(whole)) == whole
        for cap in range(len(whole)):
            with pytest.raises(WireError, match="^E_NO_SPACE$"):
                build(cap)


@given(st.binary(max_size=200))
def test_any_attributes_are_a_request_or_an_error_with_a_name(body):
    message = with_length(VECTORS["request-empty"] + body[: len(body) & ~3])
    try:
        stun.parse(message)
    except WireError as error:
        assert error.code in (NAMES["E_FORMAT"], NAMES["E_AUTH"])

"""Header extensions: both forms, what stops a parser, and writing for another numbering."""

import pytest
from aiortc.rtp import unpack_header_extensions
from hypothesis import given
from hypothesis import strategies as st

from relaycore import hdrext
from relaycore.errs import NAMES, WireError
from tests.support import vectors

IDS = {1: 1, 2: 2, 4: 3, 6: 14, 7: 15, 15: 200}
KINDS = st.integers(1, 16)
numberings = st.dictionaries(KINDS, st.integers(1, 255)).filter(lambda ids: len(set(ids.values())) == len(ids))


def parse(vector):
    return hdrext.parse(vector.data[2:], int.from_bytes(vector.data[:2], "big"), IDS)


@pytest.mark.parametrize("vector", vectors.good("hdrext"), ids=str)
def test_good_block(vector):
    assert vectors.plain(parse(vector)) == vector.expect


@pytest.mark.parametrize("vector", vectors.bad("hdrext"), ids=str)
def test_bad_block(vector):
    with pytest.raises(WireError, match=f"^{vector.error}$"):
        parse(vector)


@pytest.mark.parametrize("vector", vectors.good("hdrext"), ids=str)
def test_truncation_at_every_length_gives_a_part_or_an_error(vector):
    whole = parse(vector)
    profile = int.from_bytes(vector.data[:2], "big")
    for length in range(len(vector.data) - 2):
        try:
            found = hdrext.parse(vector.data[2 : 2 + length], profile, IDS)
        except WireError as error:
            assert error.code == NAMES["E_EXT_LEN"]
        else:
            assert found.items() <= whole.items()


@given(numberings, st.dictionaries(KINDS, st.binary(max_size=255)))
def test_what_is_written_is_read_back(ids, elements):
    block = hdrext.write(elements, ids, 8192)
    known = {kind: data for kind, data in elements.items() if kind in ids}
    if not known:
        assert block == b""
        return
    assert len(block) % 4 == 0 and len(block) == 4 + 4 * int.from_bytes(block[2:4], "big")
    profile = int.from_bytes(block[:2], "big")
    assert hdrext.parse(block[4:], profile, ids) == known
    fits_one_byte = all(ids[kind] <= 14 and 1 <= len(data) <= 16 for kind, data in known.items())
    assert profile == (0xBEDE if fits_one_byte else 0x1000)
    assert dict(unpack_header_extensions(profile, block[4:])) == {ids[kind]: data for kind, data in known.items()}


@pytest.mark.parametrize(
    ("elements", "ids"),
    [({1: b"0"}, {1: 1}), ({1: b"0", 4: b"ab"}, {1: 1, 4: 2}), ({7: bytes(17)}, {7: 1}), ({1: b"0"}, {1: 15})],
)
def test_a_block_is_written_whole_or_not_at_all(elements, ids):
    block = hdrext.write(elements, ids)
    assert hdrext.write(elements, ids, len(block)) == block
    for cap in range(len(block)):
        with pytest.raises(WireError, match="^E_NO_SPACE$"):
            hdrext.write(elements, ids, cap)


def test_an_element_that_no_form_can_say_is_refused():
    with pytest.raises(WireError, match="^E_INVALID$"):
        hdrext.write({7: bytes(256)}, {7: 1})


def test_one_numbering_becomes_another():
    block = hdrext.write({1: b"0", 6: b"\x80"}, {1: 4, 6: 10})
    elements = hdrext.parse(block[4:], 0xBEDE, {1: 4, 6: 10})
    assert hdrext.write(elements, {1: 1, 6: 2}).hex() == "bede0001" + "1030" + "2080"


def test_every_uri_has_its_kind():
    assert len(set(hdrext.URIS)) == 17
    assert [hdrext.kind_of_uri(uri) for uri in hdrext.URIS] == list(range(17))


@pytest.mark.parametrize(
    "uri", ["", "urn:ietf:params:rtp-hdrext:sdes:mi", "urn:ietf:params:rtp-hdrext:sdes:mid ", "urn:x"]
)
def test_other_uris_have_none(uri):
    assert hdrext.kind_of_uri(uri) == 0

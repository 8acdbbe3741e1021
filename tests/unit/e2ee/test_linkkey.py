"""Keys in links: one per publication, and half a key is no key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.e2ee import linkkey, sframe
from relay.e2ee.errors import NotAuthentic, UnknownKey

KEY = bytes(range(32))


def test_a_link_gives_back_its_key():
    link = "https://calls.example/r/team?x=1" + linkkey.fragment(KEY)
    assert linkkey.read_fragment(link) == KEY
    assert "=" not in link.partition("#key=")[2]


@given(st.text(min_size=1))
def test_a_link_gives_back_its_passphrase(passphrase):
    try:
        fragment = linkkey.passphrase_fragment(passphrase)
    except UnicodeEncodeError:
        return
    assert linkkey.read_fragment(fragment) == passphrase


def test_a_link_without_a_key_says_so():
    assert linkkey.read_fragment("https://calls.example/#chat") is None


@pytest.mark.parametrize(
    "fragment", ["#key=", "#key=abcd", "#key=" + "!" * 43, "#key=" + "A" * 44, linkkey.fragment(KEY) + "&passphrase=x"]
)
def test_half_a_key_is_refused(fragment):
    with pytest.raises(ValueError, match="link"):
        linkkey.read_fragment(fragment)


def test_new_keys_differ():
    assert linkkey.new_link_key() != linkkey.new_link_key()


def test_every_publication_has_a_key_of_its_own():
    keys = {
        linkkey.publication_key(KEY, *who)
        for who in (("ana", "TR_1"), ("ana", "TR_2"), ("bo", "TR_1"), ("an", "aTR_1"), ("", "ana\0TR_1"))
    }
    assert len(keys) == 5 and all(len(key) == 16 for key in keys)


def test_the_derivation_is_fixed():
    """What the web client derives too (relay/web/js/e2ee)."""
    assert linkkey.publication_key(KEY, "ana", "TR_VCabc").hex() == "9637a7380df75788abe2de59a6992916"


def test_data_packets_have_a_key_of_their_own():
    keys = {linkkey.data_key(KEY, "ana"), linkkey.data_key(KEY, "bo"), linkkey.publication_key(KEY, "ana", "")}
    assert len(keys) == 3 and all(len(key) == 16 for key in keys)


def test_an_empty_passphrase_is_none():
    assert linkkey.read_fragment("#passphrase=") is None


def test_two_publications_with_one_name_have_no_nonce_in_common():
    """The relay gives identities and sids, and could give them twice."""
    kids = {linkkey.new_kid() for _ in range(1000)}
    assert len(kids) == 1000 and max(kids) < 1 << 40
    base = linkkey.publication_key(KEY, "ana", "TR_1")
    assert len({sframe.derive(base, kid) for kid in kids}) == 1000


def test_a_publication_is_opened_under_the_first_kid_that_fits_alone():
    base, opener = linkkey.publication_key(KEY, "ana", "TR_1"), linkkey.LinkOpener(KEY, "ana", "TR_1")
    forged, now, recorded = (sframe.Sealer(sframe.FrameKey(k, kid)) for k, kid in ((bytes(16), 1 << 63), (base, 5), (base, 6)))
    with pytest.raises(NotAuthentic):
        opener.open(forged.seal(b"frame"))
    assert opener.open(now.seal(b"frame")) == b"frame"
    with pytest.raises(UnknownKey):
        opener.open(recorded.seal(b"frame"))
    again = now.seal(b"frame")
    assert opener.open(again) == b"frame" and opener.open(again) is None

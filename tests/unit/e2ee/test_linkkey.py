"""Keys in links: one per publication, and half a key is no key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.e2ee import linkkey

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

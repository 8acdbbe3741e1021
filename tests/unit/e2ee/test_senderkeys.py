"""Senders that ratchet are followed forward by the numbers of their frames, and by nothing that does not open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.e2ee import senderkeys
from relay.e2ee.errors import NotAuthentic, UnknownKey
from relay.e2ee.senderkeys import FollowingOpener, SenderKey, SenderKid
from relay.e2ee.sframe import SUITES, FrameKey, Sealer, ratchet

FIRST = SenderKey(bytes(range(16)), generation=3)


def following(key: SenderKey = FIRST, **options: int) -> FollowingOpener:
    opener = FollowingOpener(**options)
    opener.follow(key)
    return opener


def sealed(key: SenderKey, plaintext: bytes = b"frame", ctr: int = 0) -> bytes:
    return Sealer(key.frame_key(), ctr).seal(plaintext)


def test_numbers_hold_generation_and_step():
    kid = SenderKid(generation=3, step=5, ratchet_bits=8)
    assert kid.kid == 0x305 and SenderKid.of(0x305, 8) == kid
    assert SenderKid(3, 256, 8).kid == 0x300
    with pytest.raises(ValueError, match="bit"):
        SenderKey(bytes(16), 0, ratchet_bits=0)


def test_a_rung_is_the_ratchet_of_the_one_before():
    assert FIRST.ratcheted(2).base_key == ratchet(ratchet(FIRST.base_key))
    assert FIRST.ratcheted(2) == FIRST.ratcheted().ratcheted()


@pytest.mark.parametrize("suite", SUITES)
def test_a_receiver_follows_and_late_frames_still_open(suite):
    first = SenderKey(bytes(16), 9, suite=suite)
    opener = following(first)
    later = first.ratcheted(3)
    assert opener.open(sealed(later)) == b"frame"
    assert opener.open(sealed(first)) == b"frame"
    assert opener.open(sealed(later)) is None and opener.open(sealed(later, ctr=1)) == b"frame"
    # A step that was leapt over belongs to frames that came before the leap; its key is behind the receiver's rung.
    with pytest.raises(UnknownKey):
        opener.open(sealed(first.ratcheted(1)))


def test_a_forged_number_moves_nothing():
    opener = following()
    wrong = SenderKey(bytes(16), 3).ratcheted(4)
    with pytest.raises(NotAuthentic):
        opener.open(sealed(wrong))
    assert opener.open(sealed(FIRST.ratcheted(1))) == b"frame"


@pytest.mark.parametrize(("steps", "opens"), [(senderkeys.WINDOW, True), (senderkeys.WINDOW + 1, False)])
def test_no_further_than_the_window(steps, opens):
    opener = following()
    if opens:
        assert opener.open(sealed(FIRST.ratcheted(steps))) == b"frame"
    else:
        with pytest.raises(UnknownKey):
            opener.open(sealed(FIRST.ratcheted(steps)))


@given(st.integers(1, 4), st.lists(st.integers(0, 8), max_size=12))
def test_steps_wrap_around_and_are_followed_all_the_same(bits, leaps):
    key = SenderKey(bytes(16), 1, ratchet_bits=bits)
    opener = following(key)
    assert opener.open(sealed(key)) == b"frame"
    for leap in leaps:
        leap = min(leap, (1 << bits) // 2)
        key = key.ratcheted(leap)
        assert opener.open(sealed(key)) == (b"frame" if leap else None)


def test_a_generation_is_another_key_and_can_be_forgotten():
    opener = following()
    fresh = SenderKey(b"f" * 16, 4)
    with pytest.raises(UnknownKey):
        opener.open(sealed(fresh))
    opener.follow(fresh)
    assert opener.open(sealed(fresh.ratcheted())) == b"frame" == opener.open(sealed(FIRST.ratcheted()))
    opener.forget_generation(3)
    for gone in (FIRST, FIRST.ratcheted(), FIRST.ratcheted(2)):
        with pytest.raises(UnknownKey):
            opener.open(sealed(gone, ctr=5))
    assert opener.open(sealed(fresh.ratcheted(), ctr=1)) == b"frame"


def test_an_opener_that_does_not_follow_says_which_key_it_lacks():
    from relay.e2ee.sframe import Opener

    opener = Opener()
    opener.add(FrameKey(FIRST.base_key, FIRST.number.kid))
    with pytest.raises(UnknownKey) as found:
        opener.open(sealed(FIRST.ratcheted()))
    assert found.value.number == 0x301


def test_a_key_that_is_given_again_does_not_lead_back():
    opener = following()
    late = sealed(FIRST)
    assert opener.open(late) == b"frame"
    for step in range(1, 17):
        opener.open(sealed(FIRST.ratcheted(step)))
    opener.follow(FIRST)
    with pytest.raises(UnknownKey):
        opener.open(late)
    assert opener.open(sealed(FIRST.ratcheted(17))) == b"frame"


def test_a_key_is_not_written_into_logs():
    assert "base_key" not in repr(FIRST) and repr(FIRST.base_key) not in repr(FIRST)

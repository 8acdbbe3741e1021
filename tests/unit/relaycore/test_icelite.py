"""ICE-lite: what selects a tuple, what takes it away, and when a transport is dead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore.errs import NAMES
from relaycore.icelite import IceFace

IP = bytes([192, 0, 2, 1])
S = 1_000_000_000
HIGH, LOW = 2_000_000_000, 1_000_000_000


def nominated(*checks):
    """A face with the given (port, priority, time in s) checks, all with USE-CANDIDATE."""
    ice = IceFace(0)
    for port, priority, at in checks:
        ice.on_check(IP, port, priority, True, int(at * S))
    return ice


def selected_port(ice, ports):
    return next((port for port in ports if ice.selected >= 0 and ice.find(IP, port) == ice.selected), None)


def test_nothing_is_selected_before_a_nomination():
    ice = IceFace(0)
    assert ice.on_check(IP, 1, HIGH, False, S) == (0, False)
    assert ice.selected == -1
    assert ice.on_check(IP, 1, HIGH, True, S) == (0, True)
    assert ice.on_check(IP, 1, HIGH, True, 2 * S) == (0, False)
    assert ice.selected == 0


def test_a_tuple_is_address_port_family_and_socket():
    ice = IceFace(0)
    ice.on_check(IP, 1, HIGH, True, 0)
    assert ice.find(IP, 1) == 0
    assert ice.find(IP, 2) == -1
    assert ice.find(IP, 1, socket_index=1) == -1
    assert ice.find(IP + bytes(12), 1) == -1
    assert ice.find(bytes(4), 1) == -1
    # The zero address is no free place.
    assert ice.find(bytes(4), 0) == -1


def test_a_higher_priority_takes_over_at_once():
    ice = nominated((1, LOW, 0))
    assert ice.on_check(IP, 2, HIGH, True, S)[1]
    assert selected_port(ice, (1, 2)) == 2


def test_a_higher_priority_without_use_candidate_does_not():
    ice = nominated((1, LOW, 0))
    for at in range(1, 30):
        assert not ice.on_check(IP, 1, LOW, False, at * S)[1]
        assert not ice.on_check(IP, 2, HIGH, False, at * S)[1]
        assert ice.poll(at * S) == 0
    assert selected_port(ice, (1, 2)) == 1


def test_aggressive_nomination_settles_on_the_highest_priority():
    """Firefox puts USE-CANDIDATE on every check of every pair."""
    ice = IceFace(0)
    ports = {1: LOW, 2: HIGH, 3: LOW + 1, 4: LOW}
    moves = 0
    for at in range(200):
        for port, priority in ports.items():
            moves += ice.on_check(IP, port, priority, True, at * S // 10)[1]
    assert selected_port(ice, ports) == 2
    assert moves == 2


def test_equal_priorities_do_not_alternate():
    """One local candidate that checks two of our addresses has one priority on both tuples."""
    ice = IceFace(0)
    moves = sum(ice.on_check(IP, port, HIGH, True, at * S)[1] for at in range(20) for port in (1, 2))
    assert moves == 2
    assert selected_port(ice, (1, 2)) == 2


def test_a_rebound_nat_takes_over_at_once():
    ice = nominated((1, HIGH, 0))
    ice.on_check(IP, 1, HIGH, True, 3 * S)
    assert ice.on_check(IP, 2, HIGH, True, int(3.1 * S))[1]


def test_a_phones_new_network_waits_for_the_old_one_to_fall_silent():
    ice = nominated((1, HIGH, 0))
    for tenth in range(1, 51):
        assert not ice.on_check(IP, 2, LOW, True, tenth * S // 10)[1]
    assert ice.on_check(IP, 2, LOW, True, 5 * S + 1)[1]
    # The old one, heard again with USE-CANDIDATE, is the better one; without it, it is not asked for.
    assert not ice.on_check(IP, 1, HIGH, False, 6 * S)[1]
    assert ice.on_check(IP, 1, HIGH, True, 6 * S)[1]


def test_media_keeps_a_tuple_selected_but_selects_none():
    ice = nominated((1, HIGH, 0), (2, LOW, 0))
    for at in range(1, 20):
        ice.on_media(0, at * S)
        assert not ice.on_check(IP, 2, LOW, True, at * S)[1]
        assert ice.poll(at * S) == 0
    assert ice.selected == 0
    for at in range(20, 26):
        ice.on_media(0, 19 * S)
        ice.on_check(IP, 2, LOW, False, at * S)
        ice.poll(at * S)
    assert ice.selected == 1
    ice.on_media(0, 26 * S)
    assert ice.poll(26 * S) == 0 and ice.selected == 1


def test_a_tuple_keeps_the_priority_it_was_nominated_under():
    """As recorded from Firefox 153: consent checks have no USE-CANDIDATE and another PRIORITY."""
    ice = nominated((1, 1853751551, 0))
    ice.on_check(IP, 1, 2122187007, False, 4 * S)
    assert ice.on_check(IP, 2, 1853751552, True, 5 * S)[1]
    # A later nomination may say another.
    ice.on_check(IP, 2, 1853751553, True, 5 * S)
    assert not ice.on_check(IP, 3, 1853751552, True, 5 * S)[1]


def test_a_switch_to_a_lower_priority_ends_with_the_tuple_nominated_last():
    """As recorded from Chromium 156, which nominates its selected pair alone: port 2 is where it wants to be."""
    ice = nominated((1, 1853759231, 0.06), (1, 1853759231, 0.12), (2, 1853628159, 0.24), (2, 1853628159, 0.31))
    assert selected_port(ice, (1, 2)) == 1
    for at in (1.43, 2.49, 5.15):
        ice.on_check(IP, 2, 1853628159, True, int(at * S))
    assert selected_port(ice, (1, 2)) == 2


def test_a_silent_tuple_loses_to_another_nominated_one():
    ice = nominated((1, HIGH, 0), (2, LOW, 0), (3, LOW + 1, 0))
    for at in range(1, 6):
        ice.on_check(IP, 2, LOW, False, at * S)
        ice.on_check(IP, 3, LOW + 1, False, at * S)
        assert ice.poll(at * S) == 0
    assert ice.poll(5 * S + 1) == 1
    assert selected_port(ice, (1, 2, 3)) == 3


def test_a_lost_tuple_leaves_the_best_of_the_nominated_ones_that_are_heard():
    """As when a TCP connection ends; nobody waits for the five seconds."""
    ice = nominated((1, HIGH, 0), (2, LOW, 1), (3, LOW + 1, 1))
    ice.on_check(IP, 4, HIGH - 1, False, 1 * S)
    assert not ice.drop(1, 2 * S)
    assert selected_port(ice, (1, 2, 3)) == 1
    assert ice.drop(0, 2 * S)
    assert selected_port(ice, (1, 2, 3, 4)) == 3
    assert ice.drop(2, 7 * S) and ice.selected == -1


def test_a_silent_tuple_stays_when_the_other_was_never_nominated_or_is_as_silent():
    ice = nominated((1, HIGH, 0), (2, LOW, 0))
    ice.on_check(IP, 3, LOW, False, 6 * S)
    assert ice.poll(7 * S) == 0
    assert selected_port(ice, (1, 2, 3)) == 1


def test_thirty_seconds_without_a_check_are_the_end():
    ice = nominated((1, HIGH, 1))
    for at in range(2, 31):
        ice.on_media(0, at * S)
        assert ice.poll(at * S) == 0
    assert ice.poll(31 * S) == 0
    assert ice.poll(31 * S + 1) == 2
    assert ice.is_dead
    assert ice.poll(32 * S) == 0


def test_a_transport_that_nobody_checks_dies_too():
    ice = IceFace(7 * S)
    assert ice.poll(37 * S) == 0
    assert ice.poll(37 * S + 1) == 2


def test_a_check_revives_the_transport_and_says_so():
    ice = nominated((1, HIGH, 0))
    ice.poll(31 * S)
    assert ice.on_check(IP, 1, HIGH, False, 32 * S) == (0, True)
    assert not ice.is_dead
    assert ice.poll(33 * S) == 0


def test_a_restart_lets_the_first_nomination_take_over():
    ice = nominated((1, HIGH, 0))
    assert ice.begin_generation()
    assert ice.selected == 0
    assert ice.on_check(IP, 2, LOW, True, S)[1]
    assert not ice.on_check(IP, 1, HIGH, False, S)[1]
    assert selected_port(ice, (1, 2)) == 2


def test_the_longest_unheard_tuple_makes_place_unless_it_is_nominated():
    ice = nominated((1, HIGH, 0))
    for port in range(2, 9):
        ice.on_check(IP, port, LOW, False, port * S // 10)
    assert ice.on_check(IP, 9, LOW, False, S)[0] == 1
    assert ice.find(IP, 2) == -1
    assert ice.find(IP, 1) == 0
    assert ice.selected == 0


def test_the_selected_tuple_never_makes_place():
    """Not after a restart, which takes its nomination, and not when it is the one unheard for longest."""
    for is_restarted in (True, False):
        ice = nominated((1, HIGH, 0))
        if is_restarted:
            ice.begin_generation()
        for port in range(2, 12):
            ice.on_check(IP, port, LOW, False, (10 + port) * S)
        assert ice.selected == ice.find(IP, 1) == 0
    ice = nominated(*((port, HIGH - port, 0.1 * port) for port in range(1, 9)))
    assert ice.on_check(IP, 9, LOW, False, 21 * S) == (1, False)
    assert ice.selected == ice.find(IP, 1) == 0


def test_a_table_of_nominated_tuples_refuses_more_until_one_is_silent():
    ice = nominated(*((port, HIGH + port, 0.1 * port) for port in range(1, 9)))
    assert ice.on_check(IP, 9, LOW, True, 5 * S) == (NAMES["E_LIMIT"], False)
    assert ice.find(IP, 9) == -1
    for port in range(1, 9):
        ice.on_check(IP, port, HIGH + port, True, (4 + port) * S // 2)
    # Port 1 was heard at 2.5 s, the others after that; the selected one (8) never makes place.
    assert ice.on_check(IP, 9, LOW, True, 8 * S)[0] == ice.find(IP, 9) == 0
    assert selected_port(ice, range(1, 10)) == 8


@given(
    st.lists(
        st.tuples(st.integers(1, 10), st.integers(0, 3), st.booleans(), st.integers(0, 4 * S), st.booleans()),
        max_size=80,
    )
)
def test_whatever_comes_selected_is_a_nominated_tuple_and_moves_only_as_told(steps):
    ice = IceFace(0)
    now = 0
    for port, priority, use_candidate, wait, is_poll in steps:
        now += wait
        before = ice.selected
        if is_poll:
            changed = ice.poll(now)
            assert (changed == 1) == (ice.selected != before)
        else:
            was_dead = ice.is_dead
            index, moved = ice.on_check(IP, port, priority, use_candidate, now)
            assert (index < 0) == (ice.find(IP, port) < 0)
            if ice.selected != before:
                assert use_candidate and moved and ice.selected == index
            else:
                assert not moved or was_dead
        if ice.selected >= 0:
            assert ice.selected in ice.nominated()
        assert len(ice.nominated()) <= 8


@pytest.mark.parametrize("offset", [0, 10**18, -(10**9) * 100])
def test_the_clocks_origin_does_not_matter(offset):
    ice = IceFace(offset)
    ice.on_check(IP, 1, HIGH, True, offset + S)
    assert not ice.on_check(IP, 2, LOW, True, offset + 2 * S)[1]
    assert ice.on_check(IP, 2, LOW, True, offset + 7 * S)[1]

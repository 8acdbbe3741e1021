"""The tables: what they allow, that every state can be left or is final, and how they print."""

import subprocess
import sys

import pytest

from relay.session.states import (
    ASSOCIATION,
    CHANNEL,
    TRANSPORT,
    IllegalTransition,
    Machine,
    TransportState,
    TransportTrigger,
    printed,
)


@pytest.mark.parametrize("table", [TRANSPORT, ASSOCIATION, CHANNEL])
def test_every_state_is_reached_from_the_first_row(table) -> None:
    start = next(iter(table))[0]
    reached = {start}
    while grown := {after for (before, _), after in table.items() if before in reached} - reached:
        reached |= grown
    assert reached == set(type(start))


def test_an_illegal_pair_raises_and_moves_nothing() -> None:
    machine = Machine(TRANSPORT, TransportState.NEW)
    with pytest.raises(IllegalTransition, match="'new' has no row"):
        machine.fire(TransportTrigger.HANDSHAKE_DONE)
    assert machine.state is TransportState.NEW


@pytest.mark.parametrize("final", [TransportState.CLOSED, TransportState.FAILED])
def test_there_is_no_way_back(final: TransportState) -> None:
    assert {after for (before, _), after in TRANSPORT.items() if before is final} == {final}


def test_the_tables_print_a_row_per_pair() -> None:
    text = subprocess.run(
        [sys.executable, "-W", "error", "-m", "relay.session.states"], check=True, capture_output=True, text=True
    ).stdout
    assert printed("Transport", TRANSPORT) in text
    rows = [line for line in text.splitlines() if line.count("  ") >= 2]
    assert len(rows) == len(TRANSPORT) + len(ASSOCIATION) + len(CHANNEL) + 3

"""The batch of outgoing datagrams: order, bounds, and who holds the slots."""

from relaycore import outbox

E_NO_SPACE = -12


def test_datagrams_come_out_in_order_with_their_destinations():
    box = outbox.OutboxFace()
    assert box.put(b"one", 1000, 0, 7, 41) == 0
    assert box.put(b"two", 1001, 3, 8, 42) == 0
    assert box.items() == [(b"one", 1000, 0, 7, 41), (b"two", 1001, 3, 8, 42)]


def test_a_full_outbox_leaves_the_reference_with_the_caller():
    box = outbox.OutboxFace()
    for i in range(1024):
        assert box.put(b"x", i, 0, 0, 0) == 0
    assert box.put(b"y", 1, 0, 0, 0) == E_NO_SPACE
    # The face drops its own reference then: only what stands in the outbox is in use.
    assert box.used() == 1024


def test_clear_drops_from_an_index_and_keeps_what_stands_before():
    box = outbox.OutboxFace()
    for i in range(5):
        box.put(bytes([i]), i, 0, 0, 0)
    box.clear(2)
    assert [item[0] for item in box.items()] == [b"\0", b"\1"]
    assert box.used() == 2
    box.clear()
    assert (box.items(), box.used()) == ([], 0)


def test_clear_behind_the_end_changes_nothing():
    box = outbox.OutboxFace()
    box.put(b"x", 1, 0, 0, 0)
    box.clear(5)
    assert len(box.items()) == 1


def test_compact_closes_gaps_in_order():
    box = outbox.OutboxFace()
    for i in range(6):
        box.put(bytes([i]), i, i % 2, i, i)
    for gone in (0, 3, 5):
        box.take_out(gone)
    box.compact()
    assert box.items() == [(bytes([i]), i, i % 2, i, i) for i in (1, 2, 4)]
    assert box.used() == 3
    box.clear()
    assert box.used() == 0

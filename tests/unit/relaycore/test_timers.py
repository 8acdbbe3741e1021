"""Deadlines come out in order, one per owner, and move when set again."""

import random

import pytest

from relaycore.timers import TimerHeap


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_due_order_equals_a_sorted_model(seed):
    rng = random.Random(seed)
    heap, model, now = TimerHeap(100), {}, 0
    for _ in range(5_000):
        action, owner = rng.random(), rng.randrange(100)
        if action < 0.6:
            model[owner] = now + rng.randrange(1, 1000)
            heap.set(owner, model[owner])
        elif action < 0.7:
            model.pop(owner, None)
            heap.cancel(owner)
        else:
            now += rng.randrange(200)
            fired = set()
            while (owner := heap.due(now)) >= 0:
                assert model.pop(owner) <= now
                fired.add(owner)
            assert all(deadline > now for deadline in model.values())
        assert heap.next() == (min(model.values()) if model else None)


def test_owner_out_of_range_is_refused():
    with pytest.raises(ValueError):
        TimerHeap(4).set(4, 1)

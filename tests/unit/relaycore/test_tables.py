"""The hash table behaves as a dict under churn, whatever the keys."""

import random

import pytest

from relaycore.tables import HashTable


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_agrees_with_a_dict_over_random_churn(seed):
    rng = random.Random(seed)
    table, model = HashTable(seed), {}
    for _ in range(20_000):
        key = rng.choice([rng.randrange(64), rng.getrandbits(64), rng.randrange(64) << 32])
        if rng.random() < 0.5:
            value = rng.randrange(1 << 31)
            table.put(key, value)
            model[key] = value
        else:
            assert table.remove(key) == model.pop(key, -1)
        assert table.get(key) == model.get(key, -1)
    assert len(table) == len(model)
    assert all(table.get(key) == value for key, value in model.items())


def test_a_missing_key_is_minus_one_and_negative_values_are_refused():
    table = HashTable(0)
    assert table.get(7) == -1
    assert table.remove(7) == -1
    with pytest.raises(ValueError):
        table.put(7, -1)

"""Packet slots: classes, references, exhaustion, and what the debug twin adds."""

import random
import subprocess
import sys

import pytest

from relaycore import slab

needs_debug_twin = pytest.mark.skipif(not slab.is_debug(), reason="the release build neither poisons nor aborts")


def test_small_packets_take_small_slots_and_big_ones_large():
    face = slab.SlabFace(2, 2)
    assert face.capacity(face.take(1)) == 256
    assert face.capacity(face.take(256)) == 256
    assert face.capacity(face.take(257)) == 1600
    assert face.capacity(face.take(1600)) == 1600
    assert face.used() == 4


def test_small_packets_overflow_into_large_slots_but_not_the_other_way():
    face = slab.SlabFace(1, 1)
    face.take(100)
    assert face.capacity(face.take(100)) == 1600
    face = slab.SlabFace(1, 1)
    face.take(1000)
    assert face.take(1000) is None
    assert face.capacity(face.take(10)) == 256


@pytest.mark.parametrize("size", [-1, 1601, 65536])
def test_impossible_sizes_are_refused(size):
    face = slab.SlabFace(1, 1)
    assert face.take(size) is None
    assert face.used() == 0


def test_exhausted_slab_serves_again_after_a_drop():
    face = slab.SlabFace(0, 3)
    taken = [face.take(1500) for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    assert face.take(1500) is None
    face.drop(taken[1])
    assert face.take(1500) == taken[1]


def test_a_slot_lives_until_its_last_reference_is_dropped():
    face = slab.SlabFace(1, 0)
    number = face.take(10)
    face.hold(number)
    face.drop(number)
    assert (face.refs(number), face.used()) == (1, 1)
    assert face.take(10) is None
    face.drop(number)
    assert (face.refs(number), face.used()) == (0, 0)


def test_slots_do_not_overlap():
    face = slab.SlabFace(3, 3)
    numbers = [face.take(256) for _ in range(3)] + [face.take(1600) for _ in range(3)]
    for number in numbers:
        face.write(number, bytes([number + 1]) * face.capacity(number))
    for number in numbers:
        assert face.memory(number) == bytes([number + 1]) * face.capacity(number)


def test_every_slot_comes_back_after_a_long_random_life():
    random.seed(1)
    face = slab.SlabFace(8, 8)
    held: list[int] = []
    for _ in range(5000):
        if held and random.random() < 0.5:
            face.drop(held.pop(random.randrange(len(held))))
        elif (number := face.take(random.choice((20, 1200)))) is not None:
            assert number not in held
            held.append(number)
    for number in held:
        face.drop(number)
    assert face.used() == 0
    assert len({face.take(1600) for _ in range(8)}) == 8
    assert len({face.take(1) for _ in range(8)}) == 8


@needs_debug_twin
def test_freed_slots_are_poisoned():
    face = slab.SlabFace(1, 0)
    number = face.take(10)
    face.write(number, b"secret")
    face.drop(number)
    assert face.memory(number) == b"\xdd" * 256


def run_in_child(statement: str) -> "subprocess.CompletedProcess[str]":
    code = f"from relaycore import slab; s = slab.SlabFace(1, 0); n = s.take(1); s.drop(n); {statement}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)


@needs_debug_twin
@pytest.mark.parametrize("statement", ["s.drop(n)", "s.hold(n)"])
def test_a_dead_reference_stops_the_debug_twin(statement):
    child = run_in_child(statement)
    assert child.returncode == -6
    assert "slab:" in child.stderr


@pytest.mark.skipif(slab.is_debug(), reason="the debug twin aborts")
def test_a_double_drop_does_not_hand_one_slot_out_twice():
    face = slab.SlabFace(2, 0)
    number = face.take(1)
    face.drop(number)
    face.drop(number)
    assert face.used() == 0
    assert face.take(1) != face.take(1)

"""Each rule of which tuple carries a transport, and of ICE-TCP's frames, is needed: without it a test turns red."""

import pytest

from tests.unit.relaycore.test_wire_mutants import build_and_test

# A compiler run for each of many: `make mutants`. However busy the machine is, each takes the time that it takes.
pytestmark = [pytest.mark.matrix, pytest.mark.slow, pytest.mark.timeout(1200)]

TESTS = {"icelite": ("icelite",), "receive": ("engine_ice",), "tcp": ("tcp",)}
# name: (module, what stands there, what the mutant puts there)
MUTANTS = {
    "media selects": (
        "receive",
        "    t.ice.tuples[tuple_index].last_receive_ns = now_ns\n    capture_rtcp(",
        "    t.ice.tuples[tuple_index].last_receive_ns = now_ns\n    t.ice.selected = tuple_index\n    capture_rtcp(",
    ),
    "a silent tuple stays": (
        "icelite",
        "    if best == ICE_NO_TUPLE:\n        return 0",
        "    if True:\n        return 0",
    ),
    "media keeps no tuple": ("icelite", " and now_ns - t.last_receive_ns > ms(SILENT_MS)", ""),
    "a tuple that is heard loses": (
        "icelite",
        "if ice.selected == ICE_NO_TUPLE or not _is_silent(&ice.tuples[ice.selected], now_ns):\n        return 0",
        "if ice.selected == ICE_NO_TUPLE:\n        return 0",
    ),
    "a silent tuple inherits": ("icelite", "or not t.nominated or not _was_checked(t, now_ns):", "or not t.nominated:"),
    "the first heard inherits": ("icelite", "or t.priority > ice.tuples[best].priority:", "or False:"),
    "nobody dies": ("icelite", "if now_ns - ice.last_valid_ns > ms(DEAD_MS):", "if False:"),
    "the dead stay dead": (
        "icelite",
        "    ice.last_valid_ns = now_ns\n    ice.dead = 0\n    if was_dead",
        "    ice.last_valid_ns = now_ns\n    if was_dead",
    ),
    "a higher priority waits": ("icelite", "return priority > current.priority or", "return"),
    "a rebound NAT waits": ("icelite", "or (priority == current.priority and is_new_nomination)", ""),
    "equal priorities alternate": (
        "icelite",
        "(priority == current.priority and is_new_nomination)",
        "priority == current.priority",
    ),
    "a silent one of higher priority is waited for": (
        "icelite",
        "if not current.nominated or _is_silent(current, now_ns):",
        "if not current.nominated:",
    ),
    "a restart changes nothing": ("icelite", "        ice.tuples[i].nominated = 0\n", "        pass\n"),
    "consent checks change the priority": ("icelite", "if use_candidate or not t.nominated:", "if True:"),
    "a lost tuple stays selected": (
        "icelite",
        "    ice.selected = _best_heard(ice, now_ns)\n    return 1",
        "    return 1",
    ),
    "losing another tuple moves the selection": (
        "icelite",
        "    if index != ice.selected:\n        return 0\n    ice.selected = _best",
        "    ice.selected = _best",
    ),
    "frames are cut into a begun one": (
        "tcp",
        "    if c.rest_bytes:\n        t.counters",
        "    if False:\n        t.counters",
    ),
    "half a frame is given up": ("tcp", "    if sent < whole:\n", "    if False:\n"),
    "a long frame's middle is read as frames": ("tcp", "            c.skip = length\n", "            c.skip = 0\n"),
    "a frame is taken before it is whole": ("tcp", "if ready < HEAD_BYTES + length:", "if False:"),
    "an empty frame is a packet": (
        "tcp",
        "        if length == 0:\n            continue",
        "        if False:\n            continue",
    ),
    "a place's packets go to who has it next": (
        "tcp",
        "memcmp(&c.remote, &item.remote, sizeof(SockAddr)) == 0",
        "True",
    ),
    "bytes read before are forgotten": ("tcp", "    c.read_to = bytes\n", "    c.read_to = 0\n"),
    "an end goes unnoticed": ("tcp", "    if got == 0:\n        return E_OS", "    if got == 0:\n        return 0"),
    "without a slot the stream loses its place": (
        "tcp",
        "            t.counters.slots_exhausted += 1\n",
        "            t.counters.slots_exhausted += 1\n            c.read_from -= 1\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name, tmp_path):
    module, old, new = MUTANTS[name]

    def mutate(text):
        assert text.count(old) == 1, "the mutant no longer fits the source"
        return text.replace(old, new)

    code, output = build_and_test(tmp_path, module, mutate, TESTS[module])
    # 1 is failed tests; a mutant that reads out of bounds may also die.
    assert code == 1 or code < 0, output

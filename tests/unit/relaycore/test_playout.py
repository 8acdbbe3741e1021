"""How long a subscriber holds video back so that repairs come in time."""

import struct

from relaycore.playout import PlayoutFace
from tests.support.engine import MS
from tests.unit.relaycore.test_engine_media import extension
from tests.unit.relaycore.test_engine_repair_egress import RepairBench, number

PLAYOUT = 6
URI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"


def test_one_loss_is_none_and_three_make_a_lossy_path_for_a_while():
    playout = PlayoutFace()
    playout.loss(MS)
    playout.loss(2 * MS)
    assert not playout.is_lossy(3 * MS)
    playout.loss(3 * MS)
    assert playout.is_lossy(4 * MS)
    assert playout.is_lossy(7_900 * MS) and not playout.is_lossy(8_100 * MS)


def test_the_delay_rises_at_once_and_falls_slowly():
    playout = PlayoutFace()
    assert playout.update(0, 0, 0) == 0
    assert playout.update(52 * MS, 61 * MS, MS) == 120
    assert playout.update(0, 0, 2 * MS) == 120
    fallen = [playout.update(0, 0, second * 1_000 * MS) for second in range(2, 10)]
    assert fallen == [100, 80, 60, 40, 20, 0, 0, 0]


def test_the_delay_has_a_limit():
    assert PlayoutFace().update(5_000 * MS, 0, 0) == 400


def test_the_extension_says_minimum_and_maximum():
    playout = PlayoutFace()
    playout.update(120 * MS, 0, 0)
    assert playout.write() == ((12 << 12) | 1000).to_bytes(3)


def shown(bench: RepairBench) -> int | None:
    """Minimum delay (ms) in the last packet."""
    value = extension(bench.primary()[-1], PLAYOUT)
    return None if value is None else (int.from_bytes(value) >> 12) * 10


def test_a_subscriber_that_asks_again_is_told_to_wait_for_repairs():
    bench = RepairBench()
    bench.ok("set_extensions", 2, {URI: PLAYOUT})
    bench.frame(key=True)
    for _ in range(10):
        bench.advance(33)
        bench.frame()
    assert shown(bench) is None
    for packet in bench.primary()[2:6]:
        bench.nack(number(packet))
        bench.advance(33)
    bench.frame()
    # A round trip that nobody has measured (50 ms), a frame and 20 ms.
    assert 90 <= shown(bench) <= 120


def test_a_publisher_whose_packets_are_repaired_delays_its_subscribers():
    bench = RepairBench()
    bench.ok("set_extensions", 2, {URI: PLAYOUT})
    bench.frame(key=True)
    for k in range(30):
        bench.advance(33)
        if k % 3 == 1:
            missing = bench.seq + 1
            bench.frame(seq=bench.seq + 2)
            bench.advance(60)
            bench.frame(seq=missing)
            bench.seq += 1
        else:
            bench.frame()
    bench.advance(1_000)
    bench.frame()
    assert 100 <= shown(bench) <= 160
    assert struct.unpack_from("!I", bench.primary()[-1], 8)[0] == 0x88


def test_a_path_that_has_recovered_is_told_so():
    bench = RepairBench()
    bench.ok("set_extensions", 2, {URI: PLAYOUT})
    bench.frame(key=True)
    for _ in range(10):
        bench.frame()
    for packet in bench.primary()[2:6]:
        bench.nack(number(packet))
    bench.advance(30_000)
    bench.frame()
    assert shown(bench) == 0

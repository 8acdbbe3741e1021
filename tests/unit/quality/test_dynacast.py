"""What publishers are asked for: the best that anybody wants at once, less only after a while."""

from relay.quality.choice import EncodingShape, Quality, Wanted, quality_for
from relay.quality.dynacast import PATIENCE_NS, Demand

LOW, MEDIUM, HIGH, OFF = Quality.LOW, Quality.MEDIUM, Quality.HIGH, Quality.OFF


def test_less_is_asked_for_after_a_while_and_more_at_once() -> None:
    demand = Demand()
    assert not demand.update(LOW, 0)
    assert demand.due_ns == PATIENCE_NS
    assert not demand.update(LOW, PATIENCE_NS - 1)
    assert demand.update(LOW, PATIENCE_NS)
    assert demand.enabled() == {LOW: True, MEDIUM: False, HIGH: False}
    assert demand.update(HIGH, PATIENCE_NS + 1)
    assert all(demand.enabled().values()) and demand.due_ns is None


def test_who_comes_back_in_time_is_not_noticed() -> None:
    demand = Demand()
    demand.update(OFF, 0)
    assert not demand.update(HIGH, PATIENCE_NS - 1)
    assert not demand.update(OFF, PATIENCE_NS)
    assert demand.due_ns == 2 * PATIENCE_NS


def test_with_nobody_there_everything_is_off() -> None:
    demand = Demand()
    demand.update(OFF, 0)
    assert demand.update(OFF, PATIENCE_NS)
    assert not any(demand.enabled().values())
    assert not demand.update(OFF, 2 * PATIENCE_NS)


def test_of_a_patience_that_runs_the_last_word_counts() -> None:
    demand = Demand()
    demand.update(OFF, 0)
    demand.update(MEDIUM, PATIENCE_NS // 2)
    assert demand.update(MEDIUM, PATIENCE_NS) and demand.asked is MEDIUM


def test_a_size_asks_for_the_least_quality_that_covers_it() -> None:
    shapes = {LOW: EncodingShape(320, 180), MEDIUM: EncodingShape(640, 360), HIGH: EncodingShape(1280, 720)}
    sizes = {(300, 170): LOW, (320, 180): LOW, (321, 180): MEDIUM, (1280, 720): HIGH, (4000, 3000): HIGH}
    for (width, height), quality in sizes.items():
        assert quality_for(shapes, Wanted(width=width, height=height)) is quality
    assert quality_for(shapes, Wanted(quality=MEDIUM)) is MEDIUM
    assert quality_for({}, Wanted(width=100, height=100)) is HIGH
    assert quality_for(shapes, Wanted(disabled=True, width=100, height=100)) is OFF

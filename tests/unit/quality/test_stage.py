"""Who is forwarded in a large room: those who spoke last, without jumping."""

from relay.quality.stage import BREATH_NS, ENTER_NS, STAY_NS, Stage, speaking

WINDOW_NS = 400_000_000
ALL = ("a", "b", "c", "d")


class Room:
    def __init__(self, size: int, *, for_sound: bool = False) -> None:
        self.stage = Stage(size, for_sound=for_sound)
        self.now_ns = 0

    def talk(self, seconds: float, **levels: float) -> frozenset[str]:
        """Let these speak for so long; return who is on stage in the end."""
        for _ in range(max(1, round(seconds * 1e9 / WINDOW_NS))):
            self.now_ns += WINDOW_NS
            self.stage.hear(levels, self.now_ns)
            found = self.stage.pick(ALL, self.now_ns)
        return found


def test_without_a_size_everybody_is_on() -> None:
    assert Room(0).talk(10, a=1.0) == set(ALL)


def test_the_first_to_come_are_on_until_somebody_speaks() -> None:
    room = Room(2)
    assert room.talk(5) == {"a", "b"}
    found = room.talk(2, d=0.5)
    assert "d" in found and len(found) == 2


def test_a_cough_brings_nobody_on() -> None:
    room = Room(2)
    room.talk(STAY_NS / 1e9 + 1)
    assert room.talk(0.4, d=1.0) == {"a", "b"}
    room.talk(BREATH_NS / 1e9 + 0.5)
    assert room.talk(ENTER_NS / 1e9 + 0.8, d=1.0) >= {"d"}


def test_who_spoke_last_stays_and_who_was_silent_longest_goes() -> None:
    room = Room(2)
    room.talk(4, a=0.5)
    room.talk(4)
    room.talk(4, b=0.5)
    assert room.talk(4, c=0.5) == {"b", "c"}
    assert room.talk(4, d=0.5) == {"c", "d"}


def test_nobody_is_sent_off_before_its_time_or_while_speaking() -> None:
    room = Room(1)
    room.talk(4, a=0.5)
    assert room.talk(BREATH_NS / 1e9 + 1.2, b=0.5) == {"b"}
    assert room.talk(1.6, c=0.5) == {"b"}
    assert room.talk(STAY_NS / 1e9, c=0.5) == {"c"}
    assert room.talk(10, c=0.5, d=1.0) == {"c"}


def test_a_voice_takes_a_silent_place_at_once() -> None:
    room = Room(2, for_sound=True)
    room.talk(2, a=0.5, b=0.5)
    room.talk(BREATH_NS / 1e9 + 0.4, a=0.5)
    assert room.talk(0.4, a=0.5, c=0.3) == {"a", "c"}


def test_where_all_places_speak_only_a_clearly_louder_voice_gets_one() -> None:
    room = Room(2, for_sound=True)
    room.talk(4, a=0.5, b=0.25)
    assert room.talk(4, a=0.5, b=0.25, c=0.4) == {"a", "b"}
    assert room.talk(4, a=0.5, b=0.25, c=0.6) == {"a", "c"}


def test_who_left_frees_its_place() -> None:
    room = Room(2)
    room.talk(4, c=0.5, d=0.5)
    assert room.stage.pick(("a", "b", "d"), room.now_ns) >= {"d"}
    assert "c" not in room.stage.pick(("a", "b", "d"), room.now_ns)


def test_speaking_lasts_through_a_breath() -> None:
    room = Room(0)
    room.talk(1, a=0.5)
    assert speaking(room.stage, ALL, room.now_ns + BREATH_NS) == {"a"}
    assert speaking(room.stage, ALL, room.now_ns + BREATH_NS + 1) == frozenset()

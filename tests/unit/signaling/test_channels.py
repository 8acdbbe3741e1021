"""Messages towards a participant whose data channel is full, closed or not open yet."""

from relay.session import ChannelClosed, MessageTooLarge
from relay.signaling.channels import KEPT_NS, MAX_KEPT_BYTES, MAX_WAITING_BYTES, DataPipe, Origin


class Channel:
    """The far end of a channel with room for `room` messages; `fault` is raised instead."""

    def __init__(self, room: int, fault: Exception | None = None) -> None:
        self.room = room
        self.fault = fault
        self.got: list[bytes] = []

    def send(self, channel: int, data: bytes) -> bool:
        if self.fault is not None:
            raise self.fault
        if len(self.got) >= self.room:
            return False
        self.got.append(data)
        return True


def pipe_over(channel: Channel) -> tuple[DataPipe, list[str]]:
    overflows: list[str] = []
    pipe = DataPipe(lambda: overflows.append("overflow"), reliable_label="_reliable")
    for number, label in enumerate(("_reliable", "_lossy")):
        pipe.opened(channel, number, label, preferred=True)
    return pipe, overflows


def test_before_a_channel_is_open_reliable_messages_wait_and_lossy_ones_are_dropped() -> None:
    pipe = DataPipe(lambda: None, reliable_label="_reliable")
    for label, data in (("_reliable", b"a"), ("_lossy", b"b"), ("_reliable", b"c")):
        pipe.send(label, data)
    assert pipe.dropped == 1
    channel = Channel(9)
    pipe.opened(channel, 0, "_lossy", preferred=True)
    assert channel.got == []
    pipe.opened(channel, 1, "_reliable", preferred=True)
    assert channel.got == [b"a", b"c"]


def test_who_never_opens_a_channel_costs_bounded_memory_and_is_not_sent_away() -> None:
    overflows: list[str] = []
    pipe = DataPipe(lambda: overflows.append("overflow"), reliable_label="_reliable")
    for number in range(MAX_WAITING_BYTES // 1000 + 5):
        pipe.send("_reliable", number.to_bytes(4, "big") + bytes(996))
    assert pipe.dropped == 5
    channel = Channel(10**6)
    pipe.opened(channel, 1, "_reliable", preferred=True)
    assert int.from_bytes(channel.got[-1][:4], "big") == MAX_WAITING_BYTES // 1000 + 4
    assert int.from_bytes(channel.got[0][:4], "big") == pipe.dropped
    assert not overflows


def test_reliable_messages_wait_in_order() -> None:
    channel = Channel(2)
    pipe, overflows = pipe_over(channel)
    messages = [bytes([number]) for number in range(8)]
    for message in messages:
        pipe.send("_reliable", message)
    assert channel.got == messages[:2]
    for room in (3, 3, 6, 20):
        channel.room = room
        pipe.has_room()
        assert channel.got == messages[: min(room, 8)]
    assert not overflows and pipe.dropped == 0


def test_lossy_messages_are_dropped_rather_than_late() -> None:
    channel = Channel(1)
    pipe, _ = pipe_over(channel)
    pipe.send("_lossy", b"a")
    pipe.send("_lossy", b"b")
    channel.room = 9
    pipe.has_room()
    assert channel.got == [b"a"] and pipe.dropped == 1


def test_who_does_not_read_is_given_up_once() -> None:
    channel = Channel(0)
    pipe, overflows = pipe_over(channel)
    for _ in range(MAX_WAITING_BYTES // 1000 + 5):
        pipe.send("_reliable", bytes(1000))
    assert overflows == ["overflow"]


def test_a_giant_message_harms_nothing() -> None:
    pipe, overflows = pipe_over(Channel(9, MessageTooLarge("70000")))
    pipe.send("_reliable", b"a")
    assert pipe.dropped == 1 and not overflows


def test_what_a_closed_channel_does_not_take_waits_for_another() -> None:
    pipe, overflows = pipe_over(Channel(9, ChannelClosed("gone")))
    for data in (b"a", b"b"):
        pipe.send("_reliable", data)
    pipe.send("_lossy", b"c")
    assert pipe.dropped == 1 and not overflows
    another = Channel(9)
    pipe.opened(another, 5, "_reliable", preferred=True)
    assert another.got == [b"a", b"b"]


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def numbered(pipe: DataPipe, *numbers: int, sid: str = "PA_a", data: bytes = b"") -> None:
    for number in numbers:
        pipe.send("_reliable", data or bytes([number]), Origin(sid, number))


def test_what_a_lost_channel_took_goes_out_again_before_anything_newer() -> None:
    first, second = Channel(9), Channel(9)
    pipe, _ = pipe_over(first)
    numbered(pipe, 1, 2)
    pipe.closed(first, 0)
    numbered(pipe, 3)
    pipe.opened(second, 7, "_reliable", preferred=True)
    numbered(pipe, 4)
    assert second.got == [bytes([n]) for n in (1, 2, 3, 4)]
    # They are the second channel's now, which still has them.
    pipe.opened(Channel(9), 8, "_reliable", preferred=False)
    assert len(second.got) == 4 and pipe.replay({}) == 0


def test_the_other_transport_takes_over_what_a_lost_channel_took() -> None:
    first, second = Channel(9), Channel(9)
    pipe = DataPipe(lambda: None, reliable_label="_reliable")
    pipe.opened(first, 1, "_reliable", preferred=False)
    pipe.opened(second, 1, "_reliable", preferred=True)
    numbered(pipe, 1)
    pipe.closed(second, 1)
    assert first.got == [b"\x01"]


def test_what_nobody_numbered_is_not_sent_twice() -> None:
    first, second = Channel(9), Channel(9)
    pipe, _ = pipe_over(first)
    pipe.send("_reliable", b"a")
    pipe.closed(first, 0)
    pipe.opened(second, 7, "_reliable", preferred=True)
    assert second.got == []


def test_what_a_client_says_it_has_had_is_not_sent_again() -> None:
    first, second = Channel(9), Channel(0)
    pipe, _ = pipe_over(first)
    numbered(pipe, 1, 2, 3)
    numbered(pipe, 1, sid="PA_b")
    pipe.closed(first, 0)
    # Nothing fits yet, so that what is lost is still known when the client says what it has.
    assert pipe.replay({"PA_a": 2}) == 0
    pipe._channels["_reliable"] = [(second, 7)]
    assert pipe.replay({"PA_a": 2}) == 2
    second.room = 9
    pipe.has_room()
    assert second.got == [b"\x03", b"\x01"]


def test_what_is_kept_is_bounded_in_time_and_bytes() -> None:
    for gap_ns, size, kept in ((KEPT_NS // 4, 1, 5), (1, MAX_KEPT_BYTES // 4, 3), (1, 1, MAX_KEPT_BYTES // 257)):
        clock, first, second = Clock(), Channel(10**6), Channel(10**6)
        pipe = DataPipe(lambda: None, reliable_label="_reliable", clock_ns=clock)
        pipe.opened(first, 0, "_reliable", preferred=True)
        for number in range(1, 2 * kept):
            clock.now_ns += gap_ns
            numbered(pipe, number, data=bytes(size))
        pipe.closed(first, 0)
        pipe.opened(second, 1, "_reliable", preferred=True)
        assert len(second.got) == kept


def test_the_preferred_transport_wins_and_the_other_steps_in() -> None:
    first, second = Channel(9), Channel(9)
    pipe = DataPipe(lambda: None, reliable_label="_reliable")
    pipe.opened(first, 1, "_reliable", preferred=False)
    pipe.opened(second, 1, "_reliable", preferred=True)
    pipe.send("_reliable", b"a")
    pipe.closed(second, 1)
    pipe.send("_reliable", b"b")
    assert (second.got, first.got) == ([b"a"], [b"b"])

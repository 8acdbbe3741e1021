"""Data channels between two transports (RFC 8831, RFC 8832) and what a peer may not do with them."""

import pytest

from relay.session import (
    AssociationClosed,
    AssociationState,
    ChannelClosed,
    ChannelClosedEvent,
    ChannelDrained,
    ChannelFull,
    ChannelOpened,
    MessageReceived,
    MessageTooLarge,
    SrtpKeysReady,
    TooManyChannels,
    TransportClosed,
    TransportState,
    dcep,
)
from relay.session.datachannel import (
    LOW_WATER_BYTES,
    MAX_BUFFERED_BYTES,
    MAX_BUFFERED_MESSAGES,
    MAX_CHANNELS,
    MAX_TRANSPORT_BYTES,
)
from tests.support.session_link import Link, fingerprints, run_in_real_time


@pytest.fixture
def link():
    link = Link(delay_ms=5).connected()
    yield link
    link.close()


def messages(link: Link, transport) -> list[bytes]:
    return [event.data for event in link.of(transport, MessageReceived)]


def opened(link: Link, transport, label: str) -> ChannelOpened:
    (event,) = [event for event in link.of(transport, ChannelOpened) if event.label == label]
    return event


@pytest.mark.parametrize("opener", ["server", "client"])
def test_a_channel_is_opened_and_carries_both_ways(link: Link, opener: str) -> None:
    near = getattr(link, opener)
    far = link.other(near)
    channel = near.open_channel("_reliable", protocol="veil")
    link.run(200)
    there = opened(link, far, "_reliable")
    here = opened(link, near, "_reliable")
    assert (there.by_remote, there.protocol, there.ordered, there.max_retransmits) == (True, "veil", True, None)
    assert (here.by_remote, here.channel) == (False, channel)
    near.send(channel, b"there")
    far.send(there.channel, b"and back", binary=False)
    link.run(200)
    assert link.of(far, MessageReceived) == [MessageReceived(there.channel, "_reliable", b"there", True)]
    assert link.of(near, MessageReceived) == [MessageReceived(channel, "_reliable", b"and back", False)]


def test_channels_and_messages_wait_for_the_association() -> None:
    link = Link(delay_ms=5, connect=False)
    channel = link.server.open_channel("early")
    link.server.send(channel, b"sent before there was a remote description")
    assert link.server.buffered_bytes(channel) > 0
    link.server.set_remote(fingerprints(link.client), "server")
    link.client.set_remote(fingerprints(link.server), "client")
    link.run(1_000)
    assert messages(link, link.client) == [b"sent before there was a remote description"]
    assert link.server.buffered_bytes(channel) == 0
    link.close()


def test_reliability_of_a_channel_is_told_to_the_other_end(link: Link) -> None:
    link.client.open_channel("_lossy", ordered=False, max_retransmits=1)
    link.client.open_channel("never again", max_retransmits=0)
    link.run(200)
    lossy, never = opened(link, link.server, "_lossy"), opened(link, link.server, "never again")
    assert (lossy.ordered, lossy.max_retransmits) == (False, 1)
    assert (never.ordered, never.max_retransmits) == (True, 0)


def test_labels_nobody_knows_are_opened_all_the_same(link: Link) -> None:
    for label in ("", "ünïcode ☃", "x" * 1024):
        link.client.open_channel(label)
    link.run(200)
    assert [event.label for event in link.of(link.server, ChannelOpened)] == ["", "ünïcode ☃", "x" * 1024]
    with pytest.raises(ValueError, match="1024"):
        link.client.open_channel("x" * 1025)


def test_empty_messages_stay_empty_and_keep_their_kind(link: Link) -> None:
    channel = link.client.open_channel("c")
    link.client.send(channel, b"", binary=True)
    link.client.send(channel, b"", binary=False)
    link.client.send(channel, b"\0", binary=True)
    link.run(300)
    assert [(event.data, event.binary) for event in link.of(link.server, MessageReceived)] == [
        (b"", True), (b"", False), (b"\0", True),
    ]


def test_the_largest_message_passes_and_a_larger_one_is_refused_here(link: Link) -> None:
    channel = link.client.open_channel("c")
    whole = bytes(range(256)) * 256
    link.client.send(channel, whole)
    with pytest.raises(MessageTooLarge):
        link.client.send(channel, whole + b"x")
    link.run(2_000)
    assert messages(link, link.server) == [whole]
    assert max(map(len, link.sent[link.client])) <= 1200


def test_ordered_messages_arrive_in_order_over_a_bad_path() -> None:
    sent = [bytes([number]) * (1 + 997 * (number % 7)) for number in range(40)]
    links = [Link(seed=seed, loss=0.1, delay_ms=5, jitter_ms=10).connected() for seed in range(1, 4)]
    now_ns = max(link.now_ns for link in links)
    for link in links:
        # One process has one usrsctp, and it has one clock.
        link.now_ns = now_ns
        channel = link.server.open_channel("_reliable")
        for message in sent:
            link.server.send(channel, message)
    run_in_real_time(links, 60, lambda link: len(messages(link, link.client)) == len(sent))
    for link in links:
        assert messages(link, link.client) == sent
        link.close()


def test_unordered_messages_overtake_and_a_lossy_channel_loses() -> None:
    link = Link(seed=3, delay_ms=20).connected()
    channel = link.server.open_channel("_lossy", ordered=False, max_retransmits=0)
    link.run(300)
    link.loss, link.jitter_ms = 0.25, 60
    sent = [number.to_bytes(2, "big") for number in range(200)]
    for message in sent:
        link.server.send(channel, message)
        link.run(20)
    link.loss = 0
    link.run(20_000)
    got = messages(link, link.client)
    assert len(got) == len(set(got)) and set(got) <= set(sent)
    assert got != sorted(got)
    assert 100 < len(got) < 200
    # The channel lives on.
    link.server.send(channel, b"after")
    link.run(1_000)
    assert messages(link, link.client)[-1] == b"after"
    link.close()


def test_closing_a_channel_sends_what_waits_and_closes_both_ends(link: Link) -> None:
    channel = link.client.open_channel("c")
    for _ in range(10):
        link.client.send(channel, bytes(60_000))
    link.client.close_channel(channel)
    with pytest.raises(ChannelClosed):
        link.client.send(channel, b"late")
    link.run(5_000)
    assert len(messages(link, link.server)) == 10
    there = opened(link, link.server, "c").channel
    assert link.of(link.client, ChannelClosedEvent) == [ChannelClosedEvent(channel)]
    assert link.of(link.server, ChannelClosedEvent) == [ChannelClosedEvent(there)]
    with pytest.raises(ChannelClosed):
        link.server.send(there, b"nobody")


def test_a_closed_channels_stream_is_used_again_but_not_its_number(link: Link) -> None:
    numbers = []
    for round_number in range(200):
        numbers.append(link.client.open_channel(f"round {round_number}"))
        link.client.send(numbers[-1], b"hello")
        link.run(60)
        link.client.close_channel(numbers[-1])
        link.run(120)
    assert len(link.of(link.client, ChannelClosedEvent)) == 200
    assert len(messages(link, link.server)) == 200
    assert len(set(numbers)) == 200


def test_both_ends_may_close_at_once(link: Link) -> None:
    channel = link.client.open_channel("c")
    link.run(200)
    link.client.close_channel(channel)
    link.server.close_channel(opened(link, link.server, "c").channel)
    link.run(1_000)
    assert len(link.of(link.client, ChannelClosedEvent)) == len(link.of(link.server, ChannelClosedEvent)) == 1


@pytest.mark.parametrize("seed", range(1, 4))
def test_closing_survives_loss(seed: int) -> None:
    link = Link(seed=seed, loss=0.3, delay_ms=15, jitter_ms=10).connected()
    channel = link.client.open_channel("c")
    link.client.send(channel, b"x" * 5_000)
    link.client.close_channel(channel)
    closed = lambda: link.of(link.client, ChannelClosedEvent) and link.of(link.server, ChannelClosedEvent)  # noqa: E731
    link.run(60_000, lambda: bool(closed()))
    assert messages(link, link.server) == [b"x" * 5_000]
    assert closed()
    link.close()


def test_a_slow_receiver_fills_the_channel_and_drains_it() -> None:
    link = Link(delay_ms=50).connected()
    channel = link.server.open_channel("c")
    link.run(300)
    sent = 0
    with pytest.raises(ChannelFull):
        while True:
            link.server.send(channel, bytes(50_000))
            sent += 1
    assert MAX_BUFFERED_BYTES - 50_000 < link.server.buffered_bytes(channel) <= MAX_BUFFERED_BYTES
    link.run(60_000, lambda: bool(link.of(link.server, ChannelDrained)))
    assert link.of(link.server, ChannelDrained) == [ChannelDrained(channel)]
    assert link.server.buffered_bytes(channel) <= LOW_WATER_BYTES
    link.run(60_000, lambda: len(messages(link, link.client)) == sent)
    assert len(messages(link, link.client)) == sent
    link.close()


def test_small_messages_are_bounded_by_number(link: Link) -> None:
    channel = link.server.open_channel("c")
    with pytest.raises(ChannelFull, match=f"in {MAX_BUFFERED_MESSAGES} messages"):
        for _ in range(MAX_BUFFERED_MESSAGES + 1):
            link.server.send(channel, b"x")
    link.run(60_000, lambda: bool(link.of(link.server, ChannelDrained)))
    assert link.of(link.server, ChannelDrained) == [ChannelDrained(channel)]


def test_many_channels_are_no_way_around_the_limit(link: Link) -> None:
    channels = [link.server.open_channel(f"c{number}") for number in range(8)]
    total = 0
    with pytest.raises(ChannelFull):
        for channel in channels:
            for _ in range(MAX_BUFFERED_BYTES // 65_536):
                link.server.send(channel, bytes(65_536))
                total += 65_536
    assert total <= MAX_TRANSPORT_BYTES


def test_channels_here_are_bounded(link: Link) -> None:
    for number in range(MAX_CHANNELS):
        link.server.open_channel(f"c{number}")
    with pytest.raises(TooManyChannels):
        link.server.open_channel("one more")
    link.run(500)
    assert len(link.of(link.client, ChannelOpened)) == MAX_CHANNELS


def test_a_peer_that_opens_thousands_of_channels_gets_64(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.session.datachannel.MAX_CHANNELS", 100)
    for number in range(100):
        link.client.open_channel(f"c{number}")
    # The limit holds at the server: it answers, while the client believed it might open a hundred.
    monkeypatch.setattr("relay.session.datachannel.MAX_CHANNELS", MAX_CHANNELS)
    link.run(3_000)
    assert len(link.of(link.server, ChannelOpened)) == MAX_CHANNELS
    assert link.server.counters["refused_channels"] == 100 - MAX_CHANNELS
    assert len(link.of(link.client, ChannelClosedEvent)) == 100 - MAX_CHANNELS
    assert link.server.association_state is AssociationState.UP


def raw(link: Link, stream: int, ppid: int, data: bytes) -> None:
    """Let the client send something its own DataChannels never would."""
    association = link.client._channels._association
    assert association is not None and association.send(stream, ppid, data)
    link.client.next_timeout_ns = 0
    link.run(300)


@pytest.mark.parametrize(
    "data",
    [
        b"\x03",
        b"\x07" * 12,
        b"\x03\x07" + bytes(10),
        b"\x03\x00" + bytes(8) + b"\x00\x05ab",
        b"\x03\x00\x00\x00" + bytes(4) + b"\x00\x01\x00\x00" + b"\xff",
        b"\x03\x00\x00\x00" + bytes(4) + b"\x04\x01\x00\x00" + b"x" * 1025,
        b"\x03\x00\x00\x00" + bytes(4) + b"\xff\xff\x00\x00" + b"x" * 65_535,
    ],
)
def test_an_open_that_is_not_well_formed_opens_nothing(link: Link, data: bytes) -> None:
    raw(link, 2, dcep.PPID_DCEP, data[:65_536])
    assert not link.of(link.server, ChannelOpened)
    assert link.server.counters["bad_dcep"] == 1
    assert link.server.association_state is AssociationState.UP


def test_an_open_on_our_parity_or_a_used_stream_is_refused(link: Link) -> None:
    link.client.open_channel("c")
    link.run(200)
    open_message = dcep.Open("again").write()
    raw(link, 1, dcep.PPID_DCEP, open_message)
    assert len(link.of(link.server, ChannelOpened)) == 1
    raw(link, 0, dcep.PPID_DCEP, open_message)
    link.run(1_000)
    assert link.server.counters["bad_dcep"] == 2
    assert len(link.of(link.server, ChannelClosedEvent)) == 1


def test_messages_without_channel_or_with_unknown_kind_are_counted(link: Link) -> None:
    raw(link, 8, dcep.PPID_BINARY, b"no channel")
    channel = link.client.open_channel("c")
    link.run(200)
    raw(link, 0, 52, b"a kind that RFC 8831 took back")
    raw(link, 0, 0, b"zero")
    raw(link, 8, dcep.PPID_DCEP, dcep.ACK)
    assert link.server.counters["unknown_stream"] == 1
    assert link.server.counters["unknown_ppid"] == 2
    assert link.server.counters["bad_dcep"] == 1
    assert not messages(link, link.server)
    link.client.send(channel, b"fine")
    link.run(200)
    assert messages(link, link.server) == [b"fine"]


@pytest.mark.parametrize("size", [65_537, 70_000, 200_000])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_message_above_the_limit_ends_the_association_and_not_the_media(size: int, ordered: bool) -> None:
    link = Link(delay_ms=5).connected()
    link.client.open_channel("c")
    link.run(200)
    association = link.client._channels._association
    assert association is not None and association.send(0, dcep.PPID_BINARY, bytes(size), ordered=ordered)
    link.client.next_timeout_ns = 0
    link.run(3_000)
    (closed,) = link.of(link.server, AssociationClosed)
    assert "65536" in closed.reason
    assert not messages(link, link.server)
    assert link.of(link.server, ChannelClosedEvent)
    assert link.of(link.client, AssociationClosed)
    assert link.server.state is link.client.state is TransportState.CONNECTED
    with pytest.raises(ChannelClosed):
        link.server.open_channel("more")
    link.close()


def test_an_agreed_smaller_limit_holds_in_both_directions() -> None:
    link = Link(delay_ms=5, max_message_bytes=1_000).connected()
    channel = link.client.open_channel("c")
    link.run(200)
    with pytest.raises(MessageTooLarge):
        link.client.send(channel, bytes(1_001))
    raw(link, 0, dcep.PPID_BINARY, bytes(1_000))
    assert messages(link, link.server) == [bytes(1_000)]
    raw(link, 0, dcep.PPID_BINARY, bytes(1_001))
    assert link.of(link.server, AssociationClosed)
    link.close()


def test_closing_the_transport_closes_channels_first(link: Link) -> None:
    channel = link.server.open_channel("c")
    link.run(200)
    link.server.close()
    link.run(200)
    kinds = [type(event) for event in link.events[link.server]]
    assert kinds[-2:] == [ChannelClosedEvent, TransportClosed]
    with pytest.raises(ChannelClosed):
        link.server.send(channel, b"x")
    assert link.of(link.client, TransportClosed)
    assert link.client.association_state is AssociationState.DOWN


def test_a_channel_closed_before_the_association_is_simply_gone() -> None:
    link = Link(delay_ms=5)
    channel = link.server.open_channel("c")
    link.server.close_channel(channel)
    link.connected()
    assert link.of(link.server, ChannelClosedEvent) == [ChannelClosedEvent(channel)]
    assert not link.of(link.client, ChannelOpened)
    link.close()


def test_data_channels_may_be_agreed_later() -> None:
    link = Link(delay_ms=5, sctp=False)
    link.run(1_000)
    assert link.of(link.server, SrtpKeysReady)
    link.client.enable_sctp()
    channel = link.client.open_channel("c")
    link.client.send(channel, b"hello")
    link.run(200)
    link.server.enable_sctp()
    link.run(5_000)
    assert messages(link, link.server) == [b"hello"]
    link.close()


def test_an_end_without_an_application_section_leaves_the_media_alone() -> None:
    link = Link(delay_ms=5, sctp=False)
    link.client.enable_sctp()
    link.run(60_000)
    assert link.of(link.client, AssociationClosed)
    assert link.client.state is link.server.state is TransportState.CONNECTED
    assert link.client.next_timeout_ns is None


def test_an_idle_association_asks_for_no_polls(link: Link) -> None:
    channel = link.server.open_channel("c")
    link.server.send(channel, b"x" * 1000)
    link.run(2_000)
    assert link.server.next_timeout_ns is None and link.client.next_timeout_ns is None
    # Minutes later, nothing is repeated and the next message needs one round trip.
    link.run(300_000)
    before = len(link.sent[link.server])
    link.server.send(channel, b"y")
    link.run(2_000)
    assert messages(link, link.client)[-1] == b"y"
    assert len(link.sent[link.server]) == before + 1

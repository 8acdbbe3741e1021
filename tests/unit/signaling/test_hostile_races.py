"""What other participants do while one call into the data plane, or one batch of datagrams, is under way."""

import asyncio
import threading

import pytest
from livekit.protocol import models, rtc

from relay.clock import monotonic_ns
from relay.policy.tiers import RoomKey
from relay.server import Server
from relay.session import Certificate, DatagramReady, Transport
from relay.session.states import TransportState
from relay.signaling.hall import Hall
from relay.signaling.transports import MAX_EARLY_DATAGRAMS
from tests.unit.signaling.descriptions import CHROMIUM, answer_to, recorded, without_sending

AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO


def hall_of(relay: Server) -> Hall:
    assert relay.conference is not None
    hall = relay.conference.find(RoomKey("acme", "r"))
    assert hall is not None
    return hall


async def send_offer(signal, sdp: str, number: int = 1) -> None:
    await signal.send(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=number))


async def publish_both(signal) -> None:
    await signal.publish(CHROMIUM["audio"], type=AUDIO)
    await signal.publish(CHROMIUM["video"], type=VIDEO)
    await send_offer(signal, recorded("chromium_sendrecv"))
    await signal.until("answer")


async def accept(signal, ours: rtc.SessionDescription) -> None:
    await signal.send(answer=rtc.SessionDescription(type="answer", sdp=answer_to(ours.sdp), id=ours.id))


def first_flight() -> bytes:
    """Return a ClientHello as a browser sends it."""
    client = Transport(Certificate.generate())
    client.set_remote((("sha-256", ":".join(["AB"] * 32)),), "client")
    (hello, *_) = [event.data for event in client.poll(monotonic_ns()) if isinstance(event, DatagramReady)]
    client.close()
    return hello


async def test_a_transport_is_not_closed_while_a_thread_works_on_it(connect, relay: Server) -> None:
    ana = await connect("ana")
    await accept(ana, await ana.until("offer"))
    await ana.kinds_until_pong()
    session = hall_of(relay).sessions[ana.sid]
    driver = session.subscriber.driver
    free = threading.Event()
    busy = [session.conference.pool.submit(free.wait, 5) for _ in range(2)]
    try:
        driver.on_dtls(first_flight())
        closing = asyncio.create_task(driver.close())
        await asyncio.sleep(0.05)
        assert driver.transport.state is TransportState.CONNECTING
    finally:
        free.set()
    await closing
    assert driver.transport.state is TransportState.CLOSED
    assert all(future.result() for future in busy)


async def test_datagrams_that_nobody_can_use_are_counted(connect, relay: Server) -> None:
    ana = await connect("ana")
    ours = await ana.until("offer")
    session = hall_of(relay).sessions[ana.sid]
    driver, refusals = session.subscriber.driver, session.conference.refusals
    # Nobody is known yet: what may be a first flight waits, what is more than one is dropped.
    for _ in range(MAX_EARLY_DATAGRAMS + 5):
        driver.on_dtls(b"\x16" + bytes(40))
    assert refusals == {"dtls_flood": 5}
    await accept(ana, ours)
    async with asyncio.timeout(5):
        while refusals.get("dtls", 0) < MAX_EARLY_DATAGRAMS:
            await asyncio.sleep(0.01)
    assert refusals == {"dtls_flood": 5, "dtls": MAX_EARLY_DATAGRAMS}


@pytest.mark.parametrize("who_ends_it", ["publisher unpublishes", "publisher leaves"])
async def test_a_publisher_who_goes_while_its_egress_is_made_takes_no_subscriber_along(
    connect, relay: Server, monkeypatch: pytest.MonkeyPatch, who_ends_it: str
) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await accept(bo, await bo.until("offer"))
    session = hall_of(relay).sessions[bo.sid]
    # Where nothing else is real but media: its keys are set.
    session.subscriber.driver.is_connected = True
    asked, may_go_on = asyncio.Event(), asyncio.Event()
    add_egress = session.conference.plane.add_egress

    async def slow(spec):
        number = await add_egress(spec)
        asked.set()
        await may_go_on.wait()
        return number

    monkeypatch.setattr(session.conference.plane, "add_egress", slow)
    await publish_both(ana)
    await accept(bo, await bo.until("offer", lambda ours: len(ours.mid_to_track_id) == 2))
    await asyncio.wait_for(asked.wait(), 5)
    if who_ends_it == "publisher leaves":
        await ana.send(leave=rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED))
        await bo.until("update", lambda update: any(info.state == 3 for info in update.participants))
    else:
        await send_offer(ana, without_sending(recorded("chromium_sendrecv")), 2)
        await ana.until("answer")
    may_go_on.set()
    assert "leave" not in await bo.kinds_until_pong()
    assert "leave" not in await bo.kinds_until_pong()
    assert not session.is_over


async def test_an_eviction_while_tracks_are_taken_back_is_no_error(
    connect, relay: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await connect("ana")
    await publish_both(ana)
    session = hall_of(relay).sessions[ana.sid]
    remove_receiver = session.conference.plane.remove_receiver
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(receiver: int) -> None:
        await remove_receiver(receiver)
        asked.set()
        await may_go_on.wait()

    monkeypatch.setattr(session.conference.plane, "remove_receiver", slow)
    taking = asyncio.create_task(session.publisher.answer(without_sending(recorded("chromium_sendrecv"))))
    await asyncio.wait_for(asked.wait(), 5)
    await connect("ana")
    assert session.is_over
    await asyncio.sleep(0.05)
    may_go_on.set()
    # Either there is an answer nobody reads or the transport is gone; anything else would be logged as our failure.
    assert "v=0" in (await taking).sdp

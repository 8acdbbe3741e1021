"""What a customer's own server is told, verified by livekit-api's receiver, at a relay on loopback."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from livekit import api
from livekit.protocol import models, rtc, webhook

from relay.config_rooms import Webhook
from relay.policy.tiers import RoomKey
from relay.rooms.endpoint import LeaveReason
from relay.server import Server
from relay.signaling import webhooks
from tests.support.local_relay import KEYS, OTHER_SECRET, SECRET, settings
from tests.unit.signaling.descriptions import CHROMIUM, recorded


class App:
    """Somebody's server: keeps what it is told, and answers the next ones with the given statuses."""

    def __init__(self) -> None:
        self.port = 0
        self.told: list[tuple[str, str, str]] = []
        self.answers: list[int] = []
        self.requests = 0

    async def take(self, request: web.Request) -> web.Response:
        self.requests += 1
        assert request.content_type == "application/webhook+json"
        body, token = (await request.read()).decode(), request.headers["Authorization"]
        if self.answers and (status := self.answers.pop(0)) != 200:
            return web.Response(status=status, headers={"Location": "/elsewhere"})
        self.told.append((body, token, request.path))
        return web.Response()

    def events(self, secret: str = SECRET, key: str = "akey") -> list[webhook.WebhookEvent]:
        receiver = api.WebhookReceiver(api.TokenVerifier(key, secret))
        return [receiver.receive(body, token) for body, token, _ in self.told]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.01)


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = App()
    served = web.Application()
    served.router.add_post("/{any:.*}", app.take)
    runner = web.AppRunner(served, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    app.port = site._server.sockets[0].getsockname()[1]
    yield app
    await runner.cleanup()


@pytest.fixture
async def telling(app: App) -> AsyncIterator[Server]:
    hook = Webhook("akey", (f"http://127.0.0.1:{app.port}/hook",))
    server = Server(dataclasses.replace(settings(), webhooks=(hook,)), strict=True)
    await server.start()
    yield server
    await server.stop()


async def hooks_to(app: App, **changes) -> tuple[webhooks.Webhooks, dict[str, int]]:
    refusals: dict[str, int] = {}
    made = webhooks.Webhooks([Webhook("akey", (f"http://127.0.0.1:{app.port}/h",))], KEYS, refusals, first_wait_s=0.01, **changes)
    made.start()
    return made, refusals


async def test_a_call_from_its_beginning_to_its_end(telling: Server, app: App, connect) -> None:
    """With the session's media announced as connected by hand: nothing else here has media."""
    ana = await connect("ana", to=telling)
    sid = (await ana.publish(CHROMIUM["audio"], type=models.TrackType.AUDIO)).track.sid
    await ana.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    await ana.until("answer")
    hall = telling.conference.find(RoomKey("acme", "r"))
    hall.carry_out(hall.room.activate(ana.sid))
    bo = await connect("bo", to=telling)
    await app.until(lambda: len(app.told) == 3)
    hall.carry_out(hall.room.unpublish(sid))
    telling.conference.find_session(ana.sid).end(LeaveReason.CLIENT_INITIATED)
    telling.conference.delete(hall)
    await app.until(lambda: len(app.told) == 6)
    events = app.events()
    # Bo's media never connected, so that he never joined.
    assert [(e.event, e.participant.identity, e.track.sid) for e in events] == [
        ("room_started", "", ""), ("participant_joined", "ana", ""), ("track_published", "ana", sid),
        ("track_unpublished", "ana", sid), ("participant_left", "ana", ""), ("room_finished", "", ""),
    ]  # fmt: skip
    assert {e.room.sid for e in events} == {hall.room.sid} and {e.room.name for e in events} == {"r"}
    assert len({e.id for e in events}) == 6 and all(e.created_at for e in events)
    assert events[4].participant.state == models.ParticipantInfo.State.DISCONNECTED and bo.sid


async def test_events_are_signed_and_a_forged_one_is_found(telling: Server, app: App, connect) -> None:
    await connect("ana", to=telling)
    await app.until(lambda: bool(app.told))
    body, token, path = app.told[0]
    assert path == "/hook" and app.events()[0].event == "room_started"
    with pytest.raises(Exception, match="hash mismatch"):
        api.WebhookReceiver(api.TokenVerifier("akey", SECRET)).receive(body + " ", token)
    with pytest.raises(Exception, match="verification failed"):
        app.events(OTHER_SECRET)


async def test_a_customer_is_told_of_no_call_but_its_own(telling: Server, app: App, connect) -> None:
    await connect("eve", to=telling, key="bkey", secret=OTHER_SECRET)
    await connect("ana", to=telling)
    await app.until(lambda: bool(app.told))
    (event,) = app.events()
    assert event.room.sid == telling.conference.find(RoomKey("acme", "r")).room.sid


async def test_of_two_customers_with_receivers_each_is_told_its_own(app: App) -> None:
    hooks = webhooks.Webhooks(
        [Webhook(key, (f"http://127.0.0.1:{app.port}/{key}",)) for key in ("akey", "bkey", "gone")], KEYS, {}
    )
    hooks.start()
    for customer in ("other", "acme", "payer"):
        hooks.tell(customer, customer, models.Room(name="r"))
    await app.until(lambda: len(app.told) == 2)
    await hooks.stop()
    assert {(path, body.split('"')[3]) for body, _, path in app.told} == {("/akey", "acme"), ("/bkey", "other")}
    assert [hooks.wants(customer) for customer in ("acme", "other", "payer")] == [True, True, False]


async def test_what_is_under_way_when_the_relay_stops_is_told(app: App, connect) -> None:
    hook = Webhook("akey", (f"http://127.0.0.1:{app.port}/hook",))
    server = Server(dataclasses.replace(settings(), webhooks=(hook,)), strict=True)
    await server.start()
    await connect("ana", to=server)
    await server.stop()
    assert [e.event for e in app.events()] == ["room_started", "room_finished"]


@pytest.mark.parametrize(
    ("answers", "requests", "arrives"),
    [([500, 503, 429, 408, 200], 5, True), ([500] * 5, 5, False), ([404], 1, False), ([302], 1, False), ([], 1, True)],
)
async def test_retries_are_few_and_not_for_what_is_final(app: App, answers: list[int], requests: int, arrives: bool) -> None:
    app.answers = list(answers)
    hooks, refusals = await hooks_to(app)
    hooks.tell("acme", "first", models.Room(name="r"))
    hooks.tell("acme", "second", models.Room(name="r"))
    await app.until(lambda: any(event.event == "second" for event in app.events()))
    await hooks.stop()
    assert app.requests == requests + 1 and [e.event for e in app.events()] == ["first"] * arrives + ["second"]
    # A receiver learns from the next event that it missed one.
    assert app.events()[-1].num_dropped == (not arrives) and refusals == ({} if arrives else {"webhook": 1})


async def test_a_receiver_that_does_not_answer_costs_a_bounded_queue_and_no_time(app: App, monkeypatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_QUEUED", 10)
    monkeypatch.setattr(webhooks, "LAST_WORDS_S", 0.05)
    refusals: dict[str, int] = {}
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    urls = (f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{app.port}/")
    hooks = webhooks.Webhooks([Webhook("akey", urls)], KEYS, refusals)
    hooks.start()
    for batch in range(3):
        for _ in range(10):
            hooks.tell("acme", "e", models.Room())
        # The other receiver waits for nobody.
        await app.until(lambda batch=batch: len(app.told) == 10 * (batch + 1))
    assert refusals == {"webhook_queue": 20}
    async with asyncio.timeout(1):
        await hooks.stop()
    silent.close()

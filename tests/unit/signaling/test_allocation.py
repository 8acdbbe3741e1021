"""A relay's decisions about videos, seen by whole clients: paths, sizes, priorities, and why (`GET /veil/quality`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from livekit.protocol import models, rtc

from loadtests.bot import Bot, Track
from loadtests.fleet import Fleet
from relay.server import Server
from tests.support.local_relay import token

# Small, so that a test costs little: what counts are their proportions.
LAYERS = ((160, 90, 40_000), (320, 180, 120_000), (640, 360, 400_000))
HIGH, MEDIUM, LOW, OFF = (models.VideoQuality.Value(name) for name in ("HIGH", "MEDIUM", "LOW", "OFF"))


class Viewer(Bot):
    """A bot that keeps what it is told of qualities."""

    def _on_stream_state_update(self, update: rtc.StreamStateUpdate) -> None:
        self.states = {**self.__dict__.get("states", {}), **{s.track_sid: s.state for s in update.stream_states}}

    def _on_subscribed_quality_update(self, update: rtc.SubscribedQualityUpdate) -> None:
        super()._on_subscribed_quality_update(update)
        assert [c.codec for c in update.subscribed_codecs] == ["vp8"]
        assert list(update.subscribed_codecs[0].qualities) == list(update.subscribed_qualities)
        self.demand = {q.quality for q in update.subscribed_qualities if q.enabled}

    async def want(self, track_sid: str, **settings: Any) -> None:
        await self._send(track_setting=rtc.UpdateTrackSettings(track_sids=[track_sid], **settings))


class Scene:
    """One publishes three encodings and its voice, another watches."""

    def __init__(self, relay: Server, fleet: Fleet, http: aiohttp.ClientSession) -> None:
        self.relay, self.fleet, self.http = relay, fleet, http
        self.bots: list[Viewer] = []

    async def join(self, name: str, publish: tuple[Track, ...] = ()) -> Viewer:
        bot = await Viewer.join(self.fleet, token(sub=name), publish=publish)
        self.bots.append(bot)
        return bot

    async def quality(self, name: str, **changes: Any) -> tuple[int, dict]:
        headers = {"Authorization": f"Bearer {token(sub=name, **changes)}"}
        async with self.http.get(f"http://127.0.0.1:{self.relay.http_port}/veil/quality", headers=headers) as answer:
            return answer.status, await answer.json()

    async def video(self, name: str) -> dict:
        _, found = await self.quality(name)
        return next(s for s in found["subscriptions"] if s["kind"] == "video")

    async def until(self, name: str, holds: Callable[[dict], bool], seconds: float = 6.0) -> dict:
        found: dict = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (found and holds(found)):
                    await asyncio.sleep(0.1)
                    found = await self.video(name)
        assert holds(found), found
        return found

    def estimate(self, bot: Viewer, bps: int) -> None:
        """Let the path of a participant carry so much, as the data plane would say it."""
        session = self.relay.conference.find_session(bot.sid)
        session.subscriber.driver.on_estimate(bps, 0.0, 50)


@pytest.fixture
async def scene(relay: Server, http: aiohttp.ClientSession, monkeypatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr("relay.signaling.measuring.INTERVAL_S", 0.2)
    async with Fleet(f"ws://127.0.0.1:{relay.http_port}") as fleet:
        scene = Scene(relay, fleet, http)
        yield scene
        for bot in scene.bots:
            await bot.leave()


def sends(rid: str, reason: str = "") -> Callable[[dict], bool]:
    return lambda f: f["current"] is not None and f["current"]["rid"] == rid and reason in ("", f["reason"])


async def test_a_path_that_narrows_lowers_pauses_and_brings_back_a_video_but_never_sound(scene: Scene) -> None:
    ana = await scene.join("ana", (Track.audio(), Track.video(*LAYERS)))
    bo = await scene.join("bo")
    sid = next(p.sid for p in ana.publications if p.track.kind == "video")
    found = await scene.until("bo", lambda f: sends("f", "none")(f) and f["current"]["bps"] > 300_000)
    assert (found["reason"], found["current"]["height"], found["track"], found["participant"]) == ("none", 360, sid, ana.sid)
    assert found["best"]["rid"] == "f"
    scene.estimate(bo, 300_000)
    found = await scene.until("bo", sends("h"))
    assert (found["reason"], found["sentence"]) == ("bandwidth", "Your connection carries no more now.")
    assert found["best"]["rid"] == "f" and not found["paused"]
    scene.estimate(bo, 20_000)
    await bo.until(lambda: getattr(bo, "states", {}).get(sid) == rtc.StreamState.PAUSED)
    found = await scene.until("bo", lambda f: f["paused"])
    assert found["current"] is None and found["reason"] == "bandwidth"
    assert scene.relay.conference.counts().videos_paused == 1
    async with scene.http.get(f"http://127.0.0.1:{scene.relay.http_port}/metrics") as answer:
        metrics = await answer.text()
    assert "veil_videos_paused 1.0" in metrics and "veil_videos_limited 0.0" in metrics
    _, whole = await scene.quality("bo")
    sound = next(s for s in whole["subscriptions"] if s["kind"] == "audio")
    assert sound["current"]["bps"] > 10_000 and sound["reason"] == "none"
    assert whole["estimate_bps"] == 20_000 and whole["wanted_bps"] > 400_000
    scene.estimate(bo, 5_000_000)
    await bo.until(lambda: bo.states[sid] == rtc.StreamState.ACTIVE)
    await scene.until("bo", sends("f", "none"))


async def test_what_has_no_room_stops_before_the_lower_encoding_begins(scene: Scene, monkeypatch) -> None:
    ana = await scene.join("ana", (Track.video(*LAYERS),))
    bo = await scene.join("bo")
    await scene.until("bo", lambda f: sends("f", "none")(f) and f["current"]["bps"] > 300_000)
    side = scene.relay.conference.find_session(bo.sid).subscriber
    forward, told = side.forward, []

    def heard(track_sid: str, encoding: int | None, **layers: int) -> None:
        told.append(encoding)
        forward(track_sid, encoding, **layers)

    monkeypatch.setattr(side, "forward", heard)
    scene.estimate(bo, 5_000_000)
    await bo.want(ana.publications[0].sid, width=300, height=170)
    await scene.until("bo", sends("h"))
    await bo.want(ana.publications[0].sid, quality=HIGH)
    await scene.until("bo", sends("f", "none"))
    assert told == [1, 2], "with room for both the picture moves on until the smaller one is there"
    scene.estimate(bo, 300_000)
    await scene.until("bo", sends("h", "bandwidth"))
    assert told == [1, 2, None, 1]


async def test_sizes_are_followed_and_publishers_send_what_is_wanted(scene: Scene, monkeypatch) -> None:
    monkeypatch.setattr("relay.quality.dynacast.PATIENCE_NS", 300_000_000)
    ana = await scene.join("ana", (Track.video(*LAYERS),))
    sid = ana.publications[0].sid
    await ana.until(lambda: getattr(ana, "demand", None) == set())
    bo = await scene.join("bo")
    await ana.until(lambda: ana.demand == {LOW, MEDIUM, HIGH})
    await scene.until("bo", sends("f"))
    await bo.want(sid, width=300, height=170)
    found = await scene.until("bo", sends("h"))
    assert (found["reason"], found["sentence"]) == ("requested", "Your app asks for no more than that.")
    await ana.until(lambda: ana.demand == {LOW, MEDIUM})
    await bo.want(sid, disabled=True)
    found = await scene.until("bo", lambda f: f["current"] is None)
    assert found["reason"] == "requested" and not found["paused"]
    await ana.until(lambda: ana.demand == set())
    await bo.want(sid, quality=HIGH)
    await ana.until(lambda: ana.demand == {LOW, MEDIUM, HIGH})
    await scene.until("bo", sends("f", "none"))
    # What its publisher lets nobody see it need not send.
    await ana._send(subscription_permission=rtc.SubscriptionPermission(all_participants=False))
    await ana.until(lambda: ana.demand == set())
    assert (await scene.quality("bo"))[1]["subscriptions"] == []
    await ana._send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    await ana.until(lambda: ana.demand == {LOW, MEDIUM, HIGH})


async def test_a_large_room_forwards_who_spoke_last(start, http: aiohttp.ClientSession, monkeypatch) -> None:
    monkeypatch.setattr("relay.quality.stage.STAY_NS", 500_000_000)
    monkeypatch.setattr("relay.signaling.measuring.INTERVAL_S", 0.2)
    relay = await start(tier={"cameras_forwarded": 1})
    small = Track.video((160, 90, 40_000))
    async with Fleet(f"ws://127.0.0.1:{relay.http_port}") as fleet:
        scene = Scene(relay, fleet, http)
        try:
            ana, cy = await scene.join("ana", (small,)), await scene.join("cy", (small,))
            await scene.join("bo")

            async def forwarded() -> dict[str, str]:
                _, found = await scene.quality("bo")
                return {s["participant"]: s["reason"] for s in found["subscriptions"] if s["current"] or s["reason"] == "policy"}

            async with asyncio.timeout(6):
                while await forwarded() != {ana.sid: "none", cy.sid: "policy"}:
                    await asyncio.sleep(0.1)
                (hall,) = relay.conference.halls
                while await forwarded() != {ana.sid: "policy", cy.sid: "none"}:
                    hall.heard(cy.sid, 10)
                    await asyncio.sleep(0.1)
        finally:
            for bot in scene.bots:
                await bot.leave()


async def test_quality_is_told_to_its_own_participant_alone(scene: Scene) -> None:
    await scene.join("ana", (Track.audio(),))
    await scene.join("bo")
    assert {s["kind"] for s in (await scene.quality("bo"))[1]["subscriptions"]} == {"audio"}
    assert (await scene.quality("ana"))[1]["subscriptions"] == []
    status, body = await scene.quality("cy")
    assert (status, body) == (403, {"error": "You are not in this call now: join it first."})
    assert (await scene.quality("bo", video={"room": "another"}))[0] == 403
    status, body = await scene.quality("bo", exp=1)
    assert status == 401 and body["error"].endswith(".")
    operators = f"http://127.0.0.1:{scene.relay.http_port}/debug/quality"
    async with scene.http.get(operators, params={"participant": scene.bots[1].sid}) as answer:
        assert answer.status == 200 and (await answer.json())["participant"] == scene.bots[1].sid
    async with scene.http.get(operators, params={"participant": "PA_x"}) as answer:
        assert answer.status == 404
    url = f"http://127.0.0.1:{scene.relay.http_port}/veil/quality"
    async with scene.http.get(url) as answer:
        assert answer.status == 401
    async with scene.http.post(url) as answer:
        assert answer.status == 405

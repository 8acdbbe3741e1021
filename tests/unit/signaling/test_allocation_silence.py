"""Videos that fall silent, as cameras do that are muted and encodings that their senders cannot keep up."""

import asyncio

import pytest

from loadtests.bot import Track
from loadtests.fleet import Fleet
from relay.rooms.publication import Publication
from relay.signaling.allocation import UNSEEN_BPS
from tests.support.local_relay import token
from tests.unit.signaling.test_allocation import LAYERS, Scene, Viewer, scene, sends

__all__ = ["scene"]


def silence(scene: Scene, publisher: Viewer, *encodings: int) -> None:
    for encoding in encodings:
        scene.fleet.load.set_encoding(publisher.publications[0].sender, encoding, False)


def active(scene: Scene, publisher: Viewer) -> set[int]:
    (hall,) = scene.relay.conference.halls
    return hall.room.publication(publisher.publications[0].sid).active_encodings


async def test_a_muted_camera_takes_nothing_from_those_that_send(scene: Scene) -> None:
    ana = await scene.join("ana", (Track.video(*LAYERS),))
    cy = await scene.join("cy", (Track.video(*LAYERS),))
    bo = await scene.join("bo")

    async def shown() -> dict[str, str | None]:
        _, found = await scene.quality("bo")
        return {s["participant"]: s["current"] and s["current"]["rid"] for s in found["subscriptions"]}

    async with asyncio.timeout(6):
        while await shown() != {ana.sid: "f", cy.sid: "f"}:
            await asyncio.sleep(0.1)
    await cy._send(mute={"sid": cy.publications[0].sid, "muted": True})
    silence(scene, cy, 0, 1, 2)
    async with asyncio.timeout(4):
        while active(scene, cy):
            await asyncio.sleep(0.1)
    # Enough for one of them.
    scene.estimate(bo, 520_000)
    await asyncio.sleep(0.5)
    assert (await shown())[ana.sid] == "f"


@pytest.mark.long
async def test_who_sees_an_encoding_that_falls_silent_is_shown_another(scene: Scene, monkeypatch) -> None:
    monkeypatch.setattr("relay.signaling.allocation.LATER_S", 0.1)
    ana = await scene.join("ana", (Track.video(*LAYERS),))
    bo = await scene.join("bo")
    await scene.until("bo", sends("f"))
    scene.estimate(bo, 200_000)
    await scene.until("bo", sends("h", "bandwidth"))
    # What the others cost stays as it is.
    monkeypatch.setattr("relay.signaling.measuring.MATERIAL", 100.0)
    monkeypatch.setattr("relay.signaling.measuring.OTHER_FPS", 100)
    await asyncio.sleep(0.4)
    silence(scene, ana, 1)
    await scene.until("bo", sends("q"))


@pytest.mark.matrix
async def test_the_first_estimate_counts_however_much_happens_while_it_climbs(scene: Scene, monkeypatch) -> None:
    ana = await scene.join("ana", (Track.video(*LAYERS),))
    bo = await scene.join("bo")
    await scene.until("bo", sends("f"))
    monkeypatch.setattr("relay.signaling.measuring.MATERIAL", 100.0)
    monkeypatch.setattr("relay.signaling.measuring.OTHER_FPS", 100)
    await asyncio.sleep(0.4)
    division = scene.relay.conference.find_session(bo.sid).division
    division.estimate_bps = None
    scene.estimate(bo, 200_000)
    await asyncio.sleep(0.1)
    division.refresh_tracks((ana.publications[0].sid,))
    await scene.until("bo", sends("h"), seconds=6)


async def test_a_picture_announced_as_boundless_costs_nobody_else_theirs(scene: Scene, monkeypatch) -> None:
    huge = 2**32 - 1
    with monkeypatch.context() as silent:
        silent.setattr(Viewer, "_start_senders", lambda _bot: None)
        cy = await scene.join("cy", (Track.video((huge, huge, 0)),))
    await scene.join("ana", (Track.video(*LAYERS),))
    await scene.join("bo")

    async def shown() -> str | None:
        _, found = await scene.quality("bo")
        assert found["wanted_bps"] < 60_000_000
        return next(s["current"] and s["current"]["rid"] for s in found["subscriptions"] if s["participant"] != cy.sid)

    async with asyncio.timeout(5):
        while await shown() != "f":
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_sound_that_nobody_sends_is_not_reserved_for(scene: Scene, monkeypatch) -> None:
    monkeypatch.setattr("relay.signaling.allocation.SOUND_IDLE_S", 0.5)
    ana = await scene.join("ana", (Track.audio(),))
    bo = await scene.join("bo")
    division = scene.relay.conference.find_session(bo.sid).division
    async with asyncio.timeout(3):
        while division._sound_bps() < UNSEEN_BPS + 10_000:
            await asyncio.sleep(0.05)
        silence(scene, ana, 0)
        while division._sound_bps() != UNSEEN_BPS:
            await asyncio.sleep(0.05)


async def test_sound_that_is_not_forwarded_is_not_reserved_for(start, monkeypatch) -> None:
    relay = await start(tier={"microphones_forwarded": 1})
    async with Fleet(f"ws://127.0.0.1:{relay.http_port}") as fleet:
        bots = [await Viewer.join(fleet, token(sub=name), publish=(Track.audio(),)) for name in ("ana", "cy")]
        bots.append(await Viewer.join(fleet, token(sub="bo"), expect_frames=False))
        side = relay.conference.find_session(bots[-1].sid).subscriber
        async with asyncio.timeout(3):
            while len(side.egresses) < 2 or not side.sounds:
                await asyncio.sleep(0.05)
        assert len(side.sounds) == 1
        for bot in bots:
            await bot.leave()


async def test_tracks_that_nobody_saw_are_forgotten(scene: Scene) -> None:
    ana = await scene.join("ana")
    (hall,) = scene.relay.conference.halls
    for number in range(1000):
        track = Publication(f"TR_{number}", ana.sid, "cid", True)
        hall.room.publish(track)
        hall.carry_out(hall.room.bind(track.sid, mime_type="video/VP8", mid="0", rids=()))
        await asyncio.sleep(0)
        hall.carry_out(hall.room.unpublish(track.sid))
    assert len(hall.demands._demands) < 200

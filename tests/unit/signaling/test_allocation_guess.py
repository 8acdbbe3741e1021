"""Videos whose cost is what their publishers announced, because nobody has measured it yet."""

import asyncio
from typing import Any

import pytest
from livekit.protocol import rtc

from loadtests.bot import Track
from relay.signaling.session import Session
from tests.support.local_relay import token
from tests.unit.signaling.test_allocation import Scene, Viewer, scene

__all__ = ["scene"]

SENT_BPS = 200_000


class Boaster(Viewer):
    """Announces far more than it sends, as browsers do whose encoders begin low."""

    async def _send(self, **request: Any) -> None:
        if (add_track := request.get("add_track")) is not None:
            add_track.layers[0].bitrate = 1_900_000
        await super()._send(**request)


@pytest.mark.parametrize(("carries_bps", "is_paused"), [(300_000, False), (100_000, True)])
async def test_a_video_that_runs_is_paused_for_what_it_costs_not_for_what_was_announced(
    scene: Scene, monkeypatch, carries_bps: int, is_paused: bool
) -> None:
    # What this machine's own path carries does not count.
    monkeypatch.setattr(Session, "on_estimate", lambda *_: None)
    # The first steps of an estimate are over before anything is measured: for that it takes two intervals.
    monkeypatch.setattr("relay.signaling.allocation.CLIMB_NS", 150_000_000)
    for name in ("INTERVAL_S", "FIRST_INTERVAL_S"):
        monkeypatch.setattr(f"relay.signaling.measuring.{name}", 0.2)
    bo = await scene.join("bo")
    ana = await Boaster.join(scene.fleet, token(sub="ana"), publish=(Track.video((640, 360, SENT_BPS)),))
    scene.bots.append(ana)
    session = scene.relay.conference.find_session(bo.sid)
    sid, division = ana.publications[0].sid, session.division
    async with asyncio.timeout(3):
        while (share := division.share(sid)) is None or share.option is None:
            await asyncio.sleep(0.01)
    assert share.option.bps > 4 * SENT_BPS, "announced"
    division.on_estimate(carries_bps)

    def measured_bps() -> int:
        rate = scene.relay.conference.measuring.rates_of(share.carried.receiver).get(0)
        return rate.told_bps if rate is not None else 0

    async with asyncio.timeout(3):
        while not measured_bps() and not share.is_told_paused:
            await asyncio.sleep(0.01)
    assert 0 < measured_bps() < 2 * SENT_BPS, "paused for a guess"
    await asyncio.sleep(0.1)
    assert share.is_told_paused == is_paused
    assert (getattr(bo, "states", {}).get(sid) == rtc.StreamState.PAUSED) == is_paused

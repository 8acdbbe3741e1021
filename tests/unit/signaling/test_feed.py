"""Roster changes: the first at once, then four a second, departures before arrivals."""

import asyncio

from relay.rooms.endpoint import Description, Endpoint
from relay.rooms.permissions import Permission
from relay.signaling.feed import INTERVAL_S, RosterFeed, RosterUpdate


def person(identity: str, sid: str = "") -> Endpoint:
    return Endpoint(sid or f"PA_{identity}", Description(identity), Permission(), 0)


async def test_changes_of_one_moment_are_one_update_made_at_once() -> None:
    told: list[RosterUpdate] = []
    feed = RosterFeed(told.append)
    feed.mark(person("ana"))
    feed.mark(person("bo"))
    feed.mark(person("ana"))
    await asyncio.sleep(0)
    assert [[e.identity for e in update.changed] for update in told] == [["ana", "bo"]]


async def test_further_changes_wait_for_their_turn() -> None:
    told: list[float] = []
    loop = asyncio.get_running_loop()
    feed = RosterFeed(lambda _: told.append(loop.time()))
    started = loop.time()
    while loop.time() - started < 2.5 * INTERVAL_S:
        feed.mark(person("ana"))
        await asyncio.sleep(0.01)
    assert len(told) == 3
    assert told[0] - started < 0.05
    assert all(later - earlier > 0.9 * INTERVAL_S for earlier, later in zip(told, told[1:], strict=False))
    feed.close()


async def test_departures_are_told_first() -> None:
    told: list[RosterUpdate] = []
    feed = RosterFeed(told.append)
    old, new = person("ana", "PA_old"), person("ana", "PA_new")
    feed.mark(old)
    feed.mark(new)
    feed.depart(old)
    await asyncio.sleep(0)
    assert [e.sid for e in (*told[0].departed, *told[0].changed)] == ["PA_old", "PA_new"]


async def test_what_must_follow_a_change_waits_for_it() -> None:
    order: list[str] = []
    feed = RosterFeed(lambda update: order.append("told " + update.changed[0].identity))
    feed.after(lambda: order.append("nothing to wait for"))
    feed.mark(person("ana"))
    feed.after(lambda: order.append("after ana"))
    await asyncio.sleep(0)
    feed.mark(person("bo"))
    feed.after(lambda: order.append("after bo"))
    await asyncio.sleep(INTERVAL_S * 1.5)
    assert order == ["nothing to wait for", "told ana", "after ana", "told bo", "after bo"]


async def test_a_participant_need_not_hear_of_itself_alone() -> None:
    told: list[RosterUpdate] = []
    for to_itself, others in ((False, ()), (True, ()), (False, ("bo",))):
        feed = RosterFeed(told.append)
        feed.mark(person("ana"), to_itself=to_itself)
        for other in others:
            feed.mark(person(other))
        await asyncio.sleep(0)
    assert [update.alone_about for update in told] == ["PA_ana", "", ""]


async def test_a_closed_feed_says_nothing() -> None:
    told: list[RosterUpdate] = []
    feed = RosterFeed(told.append)
    feed.mark(person("ana"))
    feed.close()
    await asyncio.sleep(0.01)
    assert told == []

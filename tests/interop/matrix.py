"""Scenarios: what two clients, and all clients together, must manage through the relay.

Nothing here knows a client's kind. Each scenario returns rows with a verdict and the figure behind it, so that the
table shows how close a pass was.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.interop.clients.base import Client, State
from tests.support.relay_process import RelayProcess

# Joining, DTLS and the first keyframe take under 3 s on an idle machine; the tests share two cores with encoders.
CONNECT_S = 30.0
# The window and share of frames.
WINDOW_S = 10.0
MIN_DECODED = 0.8
# Of the audio packets sent: loopback loses none, but the two counts are not read at the same instant.
MIN_AUDIO = 0.9
SEEN_WITHIN_MS = 1000.0
POLL_S = 0.1

_rooms = itertools.count(1)


@dataclass(frozen=True)
class Leg:
    """What one client got of another."""

    publisher: str
    subscriber: str
    # Frames decoded per frame sent on the forwarded encoding.
    decoded: float = 0.0
    width: int = 0
    # Audio packets received per packet sent.
    audio: float = 0.0
    has_sound: bool = False
    has_data: bool = False
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        return f"{self.decoded:.0%} of frames, {self.width} wide, {self.audio:.0%} of audio packets, data"


@dataclass(frozen=True)
class Check:
    """One line of a scenario's result."""

    what: str
    figure: str
    passed: bool


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
    """Wait until it holds; say whether it came to."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while asyncio.get_running_loop().time() < deadline:
        if await holds():
            return True
        await asyncio.sleep(POLL_S)
    return False


async def enter(relay: RelayProcess, client: Client, identity: str, room: str) -> str:
    """Let a client join; return the identity others see."""
    return await client.join(relay.ws_url, relay.token(identity, room=room), room=room, identity=identity)


async def leave_all(clients: Sequence[Client]) -> None:
    """Make everybody leave, whatever state a failed scenario left them in."""
    for client in clients:
        try:
            await client.leave()
        except Exception as error:
            print(f"  ({client.name} could not leave: {error})")


async def pair(relay: RelayProcess, one: Client, two: Client) -> list[Leg]:
    """Let two clients send each other audio, video and data; return both directions."""
    room = f"pair-{next(_rooms)}"
    try:
        first, second = await enter(relay, one, "one", room), await enter(relay, two, "two", room)
        for client in (one, two):
            await client.publish(audio=True, video=True)
        return list(await asyncio.gather(leg(one, first, two), leg(two, second, one)))
    except Exception as error:
        return [Leg(one.name, two.name, problem=str(error)), Leg(two.name, one.name, problem=str(error))]
    finally:
        await leave_all([one, two])


async def leg(publisher: Client, sender: str, subscriber: Client) -> Leg:
    """Measure one direction of a call that has begun."""
    names = (publisher.name, subscriber.name)

    async def flows() -> bool:
        mine = (await subscriber.state()).of(sender)
        return mine.frames_decoded > 0 and mine.audio_packets > 0

    if not await until(flows, CONNECT_S):
        mine = (await subscriber.state()).of(sender)
        return Leg(*names, problem=f"no media: {mine.audio_packets} audio packets, {mine.frames_decoded} frames")
    # Not before: what comes unreliably before its channel is open is lost, and some connect sooner than others.
    await publisher.send_data("hello")
    # A sender ramps up; the figure is for an encoding that stays, so a window in which it changed is taken again.
    problem = "the forwarded encoding never stayed"
    for _ in range(4):
        spoken, sent, got = (
            await publisher.audio_packets_sent(),
            await publisher.sent(),
            (await subscriber.state()).of(sender),
        )
        await asyncio.sleep(WINDOW_S)
        spoken_after, sent_after = await publisher.audio_packets_sent(), await publisher.sent()
        state = await subscriber.state()
        got_after = state.of(sender)
        frames = {s.rid: s.frames for s in sent}
        forwarded = [s for s in sent_after if s.width == got_after.width and s.frames > frames.get(s.rid, 0)]
        if got.width != got_after.width or not forwarded:
            widths = [s.width for s in sent_after]
            problem = f"the forwarded encoding never stayed: last {got.width} then {got_after.width} of {widths}"
            continue
        made = forwarded[0].frames - frames.get(forwarded[0].rid, 0)
        decoded = (got_after.frames_decoded - got.frames_decoded) / made
        audio = (got_after.audio_packets - got.audio_packets) / max(1, spoken_after - spoken)
        has_data = all(state.when("data", sender, f"{kind}:hello") is not None for kind in "rl")
        found = Leg(*names, decoded, got_after.width, audio, got_after.audio_energy > got.audio_energy, has_data)
        return judged(found, state)
    return Leg(*names, problem=problem)


def judged(found: Leg, state: State) -> Leg:
    """Return the leg with what is wrong about it, if anything."""
    wrong = []
    if found.decoded < MIN_DECODED:
        wrong.append(f"{found.decoded:.0%} of frames decoded")
    if found.audio < MIN_AUDIO:
        wrong.append(f"{found.audio:.0%} of audio packets")
    if not found.has_sound:
        wrong.append("silence")
    if not found.has_data:
        wrong.append("data missing")
    if any(seen.what in ("reconnecting", "resuming") for seen in state.seen):
        wrong.append("reconnected")
    return Leg(**{**vars(found), "problem": ", ".join(wrong)})


async def everybody(relay: RelayProcess, clients: Sequence[Client]) -> list[Check]:
    """One room of all: audio and data from each to each; then mute, leave and rejoin, seen by each in time."""
    room = f"all-{next(_rooms)}"
    who: dict[str, Client] = {}
    checks: list[Check] = []
    try:
        for number, client in enumerate(clients):
            who[await enter(relay, client, f"c{number}", room)] = client
            await client.publish(audio=True, video=False)
        for identity, client in who.items():
            checks.append(await hears_all(client, [other for other in who if other != identity]))
        for client in who.values():
            await client.send_data("all")
        for identity, client in who.items():
            checks.append(await has_data_of_all(client, [other for other in who if other != identity]))
        for identity, client in list(who.items()):
            del who[identity]
            checks += await moves(identity, client, who)
            again, check = await rejoins(relay, room, f"{identity}-again", client, who)
            await client.publish(audio=True, video=False)
            checks.append(check)
            who[again] = client
        return checks
    except Exception as error:
        return [*checks, Check("one room of all", f"{type(error).__name__}: {error}", False)]
    finally:
        await leave_all(clients)


async def hears_all(client: Client, others: Sequence[str]) -> Check:
    async def hears() -> bool:
        state = await client.state()
        return all(state.of(other).audio_energy > 0 for other in others)

    await until(hears, CONNECT_S)
    state = await client.state()
    heard = [other for other in others if state.of(other).audio_energy > 0]
    return Check(f"{client.name} hears all others", f"{len(heard)} of {len(others)}", len(heard) == len(others))


async def has_data_of_all(client: Client, others: Sequence[str]) -> Check:
    async def missing() -> list[str]:
        state = await client.state()
        return [f"{kind}:{o}" for o in others for kind in "rl" if state.when("data", o, f"{kind}:all") is None]

    async def has_all() -> bool:
        return not await missing()

    await until(has_all, 5.0)
    lacking = await missing()
    figure = f"{2 * len(others) - len(lacking)} of {2 * len(others)}"
    return Check(f"{client.name} gets all data", figure, not lacking)


async def moves(identity: str, actor: Client, others: dict[str, Client]) -> list[Check]:
    """Mute, unmute and leave; return how long the slowest of the others took to see each."""

    async def slowest(what: str, since_ms: float) -> Check:
        async def delays() -> list[float]:
            found = []
            for other in others.values():
                seen = [s.at_ms for s in (await other.state()).seen if (s.what, s.identity) == (what, identity)]
                found += [at - since_ms for at in seen if at >= since_ms - 50][:1]
            return found

        async def seen_by_all() -> bool:
            return len(await delays()) == len(others)

        await until(seen_by_all, 5.0)
        took = await delays()
        figure = f"{max(took, default=0):.0f} ms, seen by {len(took)} of {len(others)}"
        return Check(f"{actor.name} {what}", figure, len(took) == len(others) and max(took) <= SEEN_WITHIN_MS)

    checks = [await slowest("muted", await actor.mute(True)), await slowest("unmuted", await actor.mute(False))]
    left_at = await actor.leave()
    checks.append(await slowest("left", left_at))
    return checks


async def rejoins(
    relay: RelayProcess, room: str, wanted: str, actor: Client, others: dict[str, Client]
) -> tuple[str, Check]:
    """Join again; return the identity and how long after its own join the slowest of the others saw it."""
    identity = await enter(relay, actor, wanted, room)
    joined_at = time.time() * 1000

    async def times() -> list[float]:
        seen = [(await other.state()).when("joined", identity) for other in others.values()]
        return [at for at in seen if at is not None]

    async def seen_by_all() -> bool:
        return len(await times()) == len(others)

    await until(seen_by_all, 5.0)
    found = await times()
    worst = max(found, default=0.0) - joined_at
    figure = f"{worst:.0f} ms after its own join, seen by {len(found)} of {len(others)}"
    is_good = len(found) == len(others) and worst <= SEEN_WITHIN_MS
    return identity, Check(f"{actor.name} rejoined", figure, is_good)


async def encodings(relay: RelayProcess, publisher: Client, subscriber: Client) -> list[Check]:
    """A lone 720p publisher reaches three encodings; each can be forwarded on request."""
    room = f"encodings-{next(_rooms)}"
    checks: list[Check] = []
    try:
        await enter(relay, publisher, "one", room)
        await publisher.publish(audio=False, video=True, width=1280, height=720, fps=30)

        async def all_three() -> bool:
            return sum(s.frames > 30 for s in await publisher.sent()) == 3

        await until(all_three, CONNECT_S)
        sent = sorted(await publisher.sent(), key=lambda s: s.width)
        figure = ", ".join(f"{s.rid or '-'} {s.width}: {s.frames} frames" for s in sent)
        checks.append(Check("three encodings of a lone publisher", figure, sum(s.frames > 30 for s in sent) == 3))
        await enter(relay, subscriber, "two", room)

        async def has_frames() -> bool:
            return (await subscriber.state()).of("one").frames_decoded > 0

        await until(has_frames, CONNECT_S)
        for quality, encoding in zip(("low", "medium", "high"), sent, strict=False):
            await subscriber.want_quality("one", quality)
            checks.append(await is_forwarded(subscriber, quality, encoding.width))
        return checks
    except Exception as error:
        return [*checks, Check("three encodings", f"{type(error).__name__}: {error}", False)]
    finally:
        await leave_all([publisher, subscriber])


async def is_forwarded(subscriber: Client, quality: str, width: int) -> Check:
    async def has_width() -> bool:
        return (await subscriber.state()).of("one").width == width

    loop = asyncio.get_running_loop()
    start = loop.time()
    arrived = await until(has_width, 15.0)
    took = loop.time() - start
    before = (await subscriber.state()).of("one").frames_decoded
    await asyncio.sleep(2.0)
    after = (await subscriber.state()).of("one")
    rate = (after.frames_decoded - before) / 2.0
    figure = f"{after.width} wide after {took:.1f} s, {rate:.0f} frames/s"
    return Check(f"{quality} is forwarded", figure, arrived and after.width == width and rate > 5)

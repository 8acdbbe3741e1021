"""One encrypted call of everybody who speaks LiveKit's frame format: livekit-client, the Python SDK, the built-in page, relay/e2ee.

All type the same passphrase. Somebody with another one sits in the same call and is the control: what he gets does not open.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from loadtests.bot import JoinError
from tests.interop.clients.base import Client
from tests.interop.clients.cast import cast
from tests.interop.matrix import CONNECT_S, leave_all, until
from tests.interop.recorded.caller import Caller
from tests.interop.recorded.clips import record
from tests.interop.recorded.formats import CLEAR, Passphrase
from tests.support.relay_process import RelayProcess, relay_process

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(180)]

PASSPHRASE = "correct horse battery"
FRAMES, PACKETS = 30, 50
ROOM = "sealed"


def caller(relay: RelayProcess, identity: str, passphrase: str, *codecs: str) -> Caller:
    token = relay.token(identity, room=ROOM, attributes=Passphrase.attributes)
    return Caller(relay.ws_url, token, Passphrase(passphrase), publish=[record(codec) for codec in codecs])


@contextlib.asynccontextmanager
async def joined(relay: RelayProcess, clients: dict[str, Client]) -> AsyncIterator[dict[str, Client]]:
    """Everybody in the call, publishing; by the identity that others see."""
    who: dict[str, Client] = {}
    try:
        for name, client in clients.items():
            token = relay.token(name, room=ROOM, attributes=Passphrase.attributes)
            who[await client.join(relay.ws_url, token, room=ROOM, identity=name, passphrase=PASSPHRASE)] = client
            await client.publish(audio=True, video=True)
        yield who
    finally:
        await leave_all(list(who.values()))


async def lacks(client: Client, others: list[str]) -> list[str]:
    """Return what a client has not got of the others yet."""
    state = await client.state()
    missing = []
    for other in others:
        mine = state.of(other)
        missing += [f"{other}'s picture: {mine.frames_decoded}"] * (mine.frames_decoded < FRAMES)
        missing += [f"{other}'s voice"] * (mine.audio_energy <= 0)
        missing += [f"{other}'s {kind}-data" for kind in "rl" if state.when("data", other, f"{kind}:hello") is None]
    return missing


@pytest.mark.browser
async def test_everybody_with_the_passphrase_sees_hears_and_reads_everybody() -> None:
    names = ["chromium-new", "python-new", "built-in"]
    async with (
        relay_process() as relay,
        cast(names) as clients,
        caller(relay, "library", PASSPHRASE, "vp8", "opus") as library,
        caller(relay, "stranger", "another passphrase") as stranger,
        joined(relay, clients) as who,
    ):
        for client in who.values():
            await client.send_data("hello")
        library.send_data(b"r:hello")
        library.send_data(b"l:hello", reliable=False)
        everybody = [*who, "library"]

        async def all_have_all() -> bool:
            found = await asyncio.gather(*(lacks(client, [o for o in everybody if o != me]) for me, client in who.items()))
            return not any(found)

        came = await until(all_have_all, CONNECT_S)
        lacking = {me: await lacks(client, [o for o in everybody if o != me]) for me, client in who.items()}
        assert came, lacking
        for other in who:
            await library.until(lambda: library.received(other, "video").decoded >= FRAMES)  # noqa: B023
            await library.until(lambda: library.received(other, "audio").decoded >= PACKETS)  # noqa: B023
            assert not library.received(other, "video").failures and not library.received(other, "audio").failures
            got = {data.payload for data in library.data if data.identity == other and data.was_encrypted}
            assert got == {b"r:hello", b"l:hello"}
        # The same packets under another key: nothing opens, so it was the key that opened them above.
        assert {identity for identity, _, _ in stranger.everything()} == set(everybody)
        for _, _, counts in stranger.everything():
            assert counts.frames > FRAMES and counts.decoded == 0 and counts.failures["NotAuthentic"] == counts.frames
        assert stranger.data == [] and set(stranger.bot.data_failures) == {"NotAuthentic"}


async def test_who_does_not_encrypt_is_told_so() -> None:
    async with relay_process() as relay, caller(relay, "ana", PASSPHRASE, "opus"):
        token = relay.token("bo", room=ROOM)
        with pytest.raises(JoinError, match="turn encryption on to publish"):
            async with Caller(relay.ws_url, token, CLEAR, publish=[record("opus")]):
                pass

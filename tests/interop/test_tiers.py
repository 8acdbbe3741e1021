"""Customers, tiers and keys at a relay that runs on a settings file: strangers, reloading, data messages, fail closed, limits."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from loadtests.bot import JoinError
from relay.errors import Refused
from relay.signaling import invites
from tests.interop.recorded.caller import Caller, Data
from tests.interop.recorded.clips import record
from tests.interop.recorded.formats import CLEAR, KEYS_TOPIC, Format, LinkKey, Passphrase
from tests.support.tiers import CLINIC, CLUB, SHOP, TIERS, Signer, TieredRelay, settings, tiered_relay

pytestmark = [pytest.mark.interop, pytest.mark.timeout(60)]

SEALED = Passphrase("correct horse")
ADMIN = {"roomAdmin": True, "roomCreate": True, "roomList": True, "roomRecord": True}
TWIRP = ("CreateRoom", "ListRooms", "DeleteRoom", "ListParticipants", "RemoveParticipant", "UpdateParticipant", "MutePublishedTrack",
         "SendData", "UpdateRoomMetadata")  # fmt: skip


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[TieredRelay]:
    async with tiered_relay(tmp_path) as running:
        yield running


def caller(relay: TieredRelay, who: Signer, identity: str, format_: Format = CLEAR, *codecs: str, room: str = "r", **options) -> Caller:
    token = who.token(identity, room=room, attributes=options.pop("attributes", format_.attributes))
    return Caller(relay.process.ws_url, token, format_, publish=[record(codec) for codec in codecs], **options)


async def validated(relay: TieredRelay, token: str) -> tuple[int, str]:
    url = f"{relay.process.origin}/rtc/validate"
    async with aiohttp.ClientSession() as http, http.get(url, params={"access_token": token}) as answer:
        return answer.status, await answer.text()


async def posted(relay: TieredRelay, path: str, body: dict, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as http, http.post(relay.process.origin + path, json=body, headers=headers) as answer:
        return answer.status, await answer.text()


async def metrics(relay: TieredRelay) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"{relay.process.origin}/metrics") as answer:
        return await answer.text()


async def policed(relay: TieredRelay) -> int:
    lines = [line for line in (await metrics(relay)).splitlines() if "policed" in line and not line.startswith("#")]
    assert lines
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


async def sending(ana: Caller) -> None:
    """Wait for some pictures."""
    async with asyncio.timeout(10):
        while ana.sent()[0].frames < 12:
            await asyncio.sleep(0.05)


async def soon(holds: Callable[[], bool]) -> None:
    """Wait for something that comes to a call that may be over."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.02)


def notices(of: Caller) -> list[str]:
    return [data.payload.decode() for data in of.data if data.topic == "veil.notice" and not data.identity]


async def test_three_customers_in_rooms_of_one_name_know_nothing_of_each_other(tmp_path: Path) -> None:
    """The same room name, the same identity, each under its own terms; nobody is replaced, seen, heard or counted elsewhere."""
    kinds = {SHOP: CLEAR, CLUB: LinkKey(bytes(32)), CLINIC: SEALED}
    limits = TIERS + "[tiers.free]\nparticipants_per_room = 2\n[limits]\nrooms_per_customer = 1\n"
    async with tiered_relay(tmp_path, settings(*kinds, more=limits)) as relay, contextlib.AsyncExitStack() as stack:
        speaks = {who: await stack.enter_async_context(caller(relay, who, "ana", kinds[who], "opus")) for who in kinds}
        hears = {who: await stack.enter_async_context(caller(relay, who, "bo", kinds[who])) for who in kinds}
        for who, ana in speaks.items():
            ana.send_data(who.tier.encode())
        for who, bo in hears.items():
            await bo.until(lambda: bo.received("ana", "audio").decoded >= 20 and bo.data)  # noqa: B023
            assert [data.payload for data in bo.data] == [who.tier.encode()]
            assert [info.identity for info in bo.bot.participants.values()] == ["ana"] and len(bo.everything()) == 1
            (ana_info,) = bo.bot.participants.values()
            assert ana_info.attributes["veil.tier"] == who.tier and ana_info.sid == speaks[who].bot.sid
        # The name of a track somewhere else opens nothing.
        others = [track.track_sid for who in (SHOP, CLINIC) for track in speaks[who].sent()]
        await hears[CLUB].bot.subscribe(others)
        # The shop has filled its room and its number of rooms; the others' doors stand open as before.
        assert await validated(relay, SHOP.token("cy", room="r")) == (
            403, "The room is full: calls of the free tier have 2 participants at most.")  # fmt: skip
        status, sentence = await validated(relay, SHOP.token("cy", room="r2"))
        assert status == 403 and "No more than 1 calls of a customer of the free tier" in sentence
        for who in (CLUB, CLINIC):
            assert (await validated(relay, who.token("cy", room="r")))[0] == 200
        assert len(hears[CLUB].bot.receivers) == 1
        async with aiohttp.ClientSession() as http:
            for url in ("/", "/metrics"):
                async with http.get(relay.process.origin + url) as answer:
                    text = await answer.text()
                    assert not any(who.key.customer in text for who in kinds)


async def test_no_door_takes_the_word_of_another_customer(relay: TieredRelay) -> None:
    forged = Signer(type(CLINIC.key)(CLINIC.key.key, SHOP.key.secret, CLINIC.key.customer), "paid")
    async with caller(relay, CLINIC, "ana", SEALED, "opus") as ana:
        assert await validated(relay, forged.token("spy", room="r")) == (401, "The token is not signed by the API key it names.")
        with pytest.raises(JoinError, match="401"):
            async with caller(relay, forged, "spy", SEALED):
                pass
        # Invites: forged, a token instead of one, one instead of a token; an honest one leads into the shop's own room.
        for bad in (invites.mint(forged.key, "r"), CLINIC.token("spy", room="r"), "x"):
            status, said = await posted(relay, "/client/join", {"invite": bad, "name": "Spy"})
            assert status == 401 and json.loads(said)["error"].endswith("."), said
        assert (await validated(relay, invites.mint(CLINIC.key, "r")))[0] == 401
        status, said = await posted(relay, "/client/join", {"invite": invites.mint(SHOP.key, "r"), "name": "Spy"})
        token = json.loads(said)["token"]
        async with Caller(relay.process.ws_url, token) as spy:
            assert not spy.bot.participants and not spy.everything()
        assert (await posted(relay, "/client/dev-join", {"room": "r", "name": "Spy"}))[0] in (404, 405)
        # The server API of others leads to rooms of their own.
        for method in TWIRP:
            for who in (SHOP, CLUB):
                admin = who.token("admin", room="r", **ADMIN)
                body = {"room": "r", "name": "r", "identity": "ana"}
                status, text = await posted(relay, f"/twirp/livekit.RoomService/{method}", body, admin)
                assert status in (200, 404) and "PA_" not in text, text
        assert not ana.bot.participants and not ana.bot.failure


async def test_keys_and_tiers_are_read_anew_on_sighup(relay: TieredRelay) -> None:
    everything = settings(SHOP, CLUB, CLINIC)
    async with caller(relay, SHOP, "ana") as gone, caller(relay, CLINIC, "bo", SEALED) as stays:
        # What cannot be read, or names nobody, changes nothing.
        for wrong in (everything[: everything.index("secret") + 9], everything.replace("paid", "unknown"), "", "[server]\n", "\x00",
                      "a = " + "[" * 9999, "keys = 1979-05-27", f"x = {'9' * 5000}"):  # fmt: skip
            assert "not read anew" in await relay.reload(wrong), wrong[:40]
        assert not gone.bot.failure and (await validated(relay, SHOP.token("x")))[0] == 200

        line = await relay.reload(settings(CLUB, CLINIC))
        assert "sessions_ended=1" in line
        with pytest.raises(JoinError, match="PARTICIPANT_REMOVED"):
            await gone.until(lambda: False)
        await soon(lambda: notices(gone) == ["You are out of this call of the free tier: the key that let you in was taken back."])
        assert await validated(relay, SHOP.token("x")) == (401, "The token names an API key that this server does not know.")
        status, said = await posted(relay, "/client/join", {"invite": invites.mint(SHOP.key, "r"), "name": "A"})
        assert status == 401 and "does not know" in said
        assert not stays.bot.failure

        # Of another tier now: the open room keeps its terms, for late comers too; the next room has the new ones.
        assert "were read anew" in await relay.reload(settings(CLUB, Signer(CLINIC.key, "free")))
        async with caller(relay, CLINIC, "cy", SEALED) as late, caller(relay, CLINIC, "cy", room="next", attributes={}) as new:
            assert [info.attributes["veil.tier"] for info in late.bot.participants.values()] == ["paid"]
            async with caller(relay, CLINIC, "di", room="next", attributes={"veil.min_tier": "free"}) as other:
                assert [info.attributes["veil.tier"] for info in other.bot.participants.values()] == ["free"]
            assert not new.bot.failure
        status, sentence = await validated(relay, CLINIC.token("x", room="next", attributes={"veil.min_tier": "paid"}))
        assert status == 403 and "free tier" in sentence
        assert (await validated(relay, CLINIC.token("x", room="r", attributes={"veil.min_tier": "paid"})))[0] == 200

        # A key that keeps its name and gets another secret, or another customer, is another key.
        moved = Signer(type(CLINIC.key)(CLINIC.key.key, CLINIC.key.secret, "elsewhere"), "free")
        assert "sessions_ended=1" in await relay.reload(settings(CLUB, moved))
        with pytest.raises(JoinError, match="PARTICIPANT_REMOVED"):
            await stays.until(lambda: False)


async def test_only_messages_of_the_calls_kind_go_on(relay: TieredRelay) -> None:
    async with (
        caller(relay, CLINIC, "ana", SEALED, "opus") as ana,
        caller(relay, CLINIC, "bo", SEALED) as bo,
        caller(relay, SHOP, "ana") as open_ana,
        caller(relay, SHOP, "bo") as open_bo,
    ):
        for me, format_, wrong in ((ana, SEALED, CLEAR), (open_ana, CLEAR, SEALED)):
            me._fleet.format = wrong
            me.send_data(b"of the wrong kind")
            me.send_data(b"of the wrong kind", reliable=False)
            me._fleet.format = CLEAR
            # Nobody speaks for the relay; clients may tell each other about keys.
            me.send_data(b"Your call is encrypted.", topic="veil.notice")
            me.send_data(b"Your call is encrypted.", topic="Veil.Notice")
            me.send_data(b"a sealed box", topic=KEYS_TOPIC)
            me._fleet.format = format_
            me.send_data(b"right")
        for other in (bo, open_bo):
            await other.until(lambda: len(other.data) >= 2)  # noqa: B023
            assert set(other.data) == {Data("ana", KEYS_TOPIC, b"a sealed box"), Data("ana", "bot", b"right")} and len(other.data) == 2
            assert not other.bot.data_failures
        await ana.until(lambda: notices(ana) == ["This call of the paid tier is end-to-end encrypted: messages in the clear are not sent."])
        await open_ana.until(lambda: len(notices(open_ana)) == 1)
        assert "free tier is not end-to-end encrypted: encrypted messages are not sent" in notices(open_ana)[0]


async def test_what_is_not_encrypted_as_announced_is_stopped_and_told(relay: TieredRelay) -> None:
    async with (
        caller(relay, CLINIC, "bo", SEALED, "opus") as bo,
        caller(relay, CLINIC, "ana", CLEAR, "vp8", "opus", claims=SEALED.encryption, attributes=SEALED.attributes) as ana,
    ):
        await ana.until(lambda: len(notices(ana)) == 2)
        said = "This call of the paid tier is end-to-end encrypted: your {} was stopped, because its frames were not."
        assert set(notices(ana)) == {said.format("video"), said.format("sound")}
        await bo.until(lambda: all(not info.tracks for info in bo.bot.participants.values()))
        seen = [counts.frames for _, _, counts in bo.everything()]
        await asyncio.sleep(0.5)
        assert [counts.frames for _, _, counts in bo.everything()] == seen and max(seen, default=0) <= 10
        # Who did nothing wrong goes on.
        await ana.until(lambda: ana.received("bo", "audio").frames >= 10)


@pytest.mark.long
async def test_what_is_encrypted_and_announced_as_clear_is_stopped_where_the_tier_refuses_it(relay: TieredRelay) -> None:
    async with (
        caller(relay, SHOP, "ana", SEALED, "vp8", claims=CLEAR.encryption, attributes={}) as ana,
        caller(relay, CLUB, "ana", SEALED, "vp8", claims=CLEAR.encryption, attributes={}) as tolerated,
    ):
        await ana.until(lambda: bool(notices(ana)))
        (sentence,) = notices(ana)
        assert "Calls of the free tier are not end-to-end encrypted" in sentence and "stopped" in sentence
        # A tier that allows both counts it and goes on.
        await asyncio.sleep(1)
        assert not notices(tolerated) and 'undeclared_encryption"} 2' in await metrics(relay)


async def test_a_tiers_bit_rate_is_kept(tmp_path: Path) -> None:
    more = TIERS + "[tiers.free]\npeer_bits_per_s = 20000\n"
    async with tiered_relay(tmp_path, settings(SHOP, CLUB, more=more)) as relay:
        async with caller(relay, CLUB, "ana", CLEAR, "vp8") as ana:
            await sending(ana)
        assert await policed(relay) == 0
        async with caller(relay, SHOP, "ana", CLEAR, "vp8") as ana:
            await sending(ana)
        assert await policed(relay) > 3


async def test_tokens_that_would_hide_or_promote_themselves_do_not(relay: TieredRelay) -> None:
    for hidden in (True, "yes", 1):
        status, sentence = await validated(relay, CLINIC.token("spy", hidden=hidden))
        assert status == 403 and "unseen" in sentence
    with pytest.raises(Refused):
        invites.mint(CLINIC.key, "r", demands=invites.Demands(e2ee_profile="NONE"))
    async with caller(relay, CLINIC, "ana", SEALED) as ana, caller(relay, CLINIC, "rec", SEALED) as recorder:
        await ana.until(lambda: bool(ana.bot.participants))
        assert not recorder.bot.failure

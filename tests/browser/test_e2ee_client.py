"""Encrypted calls in the built-in client: two people with one key see each other and a lock; with two keys they see words."""

from __future__ import annotations

import pytest

from tests.support.relay_process import relay_process
from tests.support.web_guest import Guest, guest, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
OTHER_KEY = "IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


async def enter(person: Guest, *, passphrase: str = "") -> None:
    if passphrase:
        await person.page.click("#lobby-e2ee summary")
        await person.page.fill("#join-passphrase", passphrase)
    await person.join()


@pytest.mark.parametrize(
    ("fragment", "passphrase"), [(f"&key={KEY}", ""), ("", "correct horse")], ids=["key in the link", "passphrase"]
)
async def test_people_with_one_key_see_hear_and_write_to_each_other(fragment: str, passphrase: str) -> None:
    address = {"fragment": f"room=r{fragment}"}
    async with relay_process() as relay, guest(relay.origin, "Ada", **address) as ada, guest(relay.origin, "Bo", **address) as bo:
        for person in (ada, bo):
            await enter(person, passphrase=passphrase)
        # Who comes back by this address is asked for the passphrase, which does not stand in it.
        assert ada.page.url.endswith(fragment or "&passphrase=")
        await ada.sees_locked("Bo")
        await bo.sees_locked("Ada")
        await until(ada.hears_something, "Ada hears Bo")
        # One's own tile has its lock only when the browser's count of frames agrees with ours.
        await ada.sees_locked("Ada (you)")
        assert await ada.text("#call-security") == "Encrypted"
        await ada.page.click("#call-security")
        assert await ada.page.is_visible("#security-hidden >> text=Pictures, screens and voices")
        await ada.page.click("#call-chat")
        await ada.page.fill("#chat-text", "only for you")
        await ada.page.press("#chat-text", "Enter")
        await bo.page.click("#call-chat")
        await bo.page.wait_for_selector("#chat-list >> text=only for you")


async def test_another_key_and_no_key_are_said_in_words() -> None:
    async with (
        relay_process() as relay,
        guest(relay.origin, "Ada", fragment=f"room=r&key={KEY}") as ada,
        guest(relay.origin, "Bo", fragment=f"room=r&key={OTHER_KEY}") as bo,
        guest(relay.origin, "Eve", room="r") as eve,
    ):
        for person in (ada, bo, eve):
            await enter(person)

        async def said(person: Guest, words: str) -> bool:
            found = await person.tile("Ada")
            return bool(found and words in found["said"] and found["frames"] == 0)

        await until(lambda: said(bo, "another key"), "Bo is told that Ada has another key")
        await until(lambda: said(eve, "a key you do not have"), "Eve is told that she has no key")


async def test_half_a_key_does_not_begin_a_call() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", fragment=f"room=r&key={KEY[:20]}") as ada:
        await ada.page.wait_for_selector("#join-problem >> text=not whole")

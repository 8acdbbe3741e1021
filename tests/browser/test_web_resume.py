"""A lost signalling connection does not end a call in the built-in page: the session goes on over another one, as does the picture."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.browser.test_web_modules import modules
from tests.support.cutter import Cutter, cutter
from tests.support.relay_process import relay_process
from tests.support.web_guest import Guest, guest, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
# Without cuts two busy browsers on two cores pause for as long now and then.
MAX_GAP_MS = 500

KEEP_CONNECTIONS = """{
  window.sockets = [];
  window.connections = [];
  const Socket = WebSocket, Peer = RTCPeerConnection;
  window.WebSocket = class extends Socket { constructor(...a) { super(...a); sockets.push(this); } };
  window.RTCPeerConnection = class extends Peer { constructor(...a) { super(...a); connections.push(this); } };
}"""
WATCH = """() => {
  window.seen = {banners: [], wasStill: false, gapMs: 0};
  const call = document.querySelector("#call"), banner = document.querySelector("#banner");
  new MutationObserver(() => {
    if (!banner.hidden) seen.banners.push(banner.textContent);
    seen.wasStill ||= call.classList.contains("is-still");
  }).observe(call, {subtree: true, attributes: true});
  const video = document.querySelector(".tile:not(.is-local) video");
  let lastMs = performance.now();
  const note = (nowMs) => {
    seen.gapMs = Math.max(seen.gapMs, nowMs - lastMs);
    lastMs = nowMs;
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
}"""
UFRAGS = "() => connections.map((c) => c.localDescription.sdp.match(/a=ice-ufrag:(.*)/)[1])"
TELL = "(message) => sockets.at(-1).onmessage({data: JSON.stringify(message)})"
CHATTED = "() => [...document.querySelectorAll('#chat-list .chat-text')].map((item) => item.textContent)"


@contextlib.asynccontextmanager
async def call_over_a_wire() -> AsyncIterator[tuple[Cutter, Guest, Guest]]:
    """Ada, whose signalling connection can be cut, and Bo, in an encrypted call."""
    fragment = f"room=r&key={KEY}"
    async with relay_process() as relay, cutter(relay.port) as wire:
        async with (
            guest(f"http://127.0.0.1:{wire.port}", "Ada", fragment=fragment, script=KEEP_CONNECTIONS) as ada,
            guest(relay.origin, "Bo", fragment=fragment) as bo,
        ):
            await ada.join()
            await bo.join()
            await asyncio.gather(ada.sees_locked("Bo"), bo.sees_locked("Ada"))
            yield wire, ada, bo


async def resumes(person: Guest) -> int:
    return await person.page.evaluate("sockets.filter(({url}) => url.includes('reconnect=1')).length")


async def joined_anew(person: Guest) -> bool:
    return await person.page.evaluate("connections.length") == 4


async def all_of(person: Guest, texts: set[str]) -> list[str]:
    chatted = await person.page.evaluate(CHATTED)
    return chatted if texts <= set(chatted) else []


async def say(person: Guest, text: str) -> None:
    await person.page.fill("#chat-text", text)
    await person.page.press("#chat-text", "Enter")


async def test_a_lost_connection_is_resumed_and_nobody_notices() -> None:
    async with call_over_a_wire() as (wire, ada, bo):

        async def resumed(count: int) -> bool:
            return await resumes(ada) >= count

        for person in (ada, bo):
            await person.press("#call-chat")
            await person.page.evaluate(WATCH)
        before = await ada.page.evaluate(UFRAGS)
        for number, half in enumerate((False, True), 1):
            assert wire.cut(half=half)
            await say(ada, f"from Ada {number}")
            await say(bo, f"from Bo {number}")
            await until(lambda: resumed(number), f"resumed {number} times")  # noqa: B023
            await ada.connected()
        after = await ada.page.evaluate(UFRAGS)
        assert len(after) == len(before) == 2, "the peer connections are those of the beginning"
        assert all(old != new for old, new in zip(before, after, strict=True)), "ICE has begun anew, both ways"
        # What Ada switches after a cut is heard, and of hers nothing was lost or came twice.
        await ada.press("#call-microphone")

        async def is_muted() -> bool:
            return bool((await bo.tile("Ada") or {}).get("isMuted"))

        await until(is_muted, "Bo sees that Ada is muted")
        said = {"from Ada 1", "from Ada 2", "from Bo 1", "from Bo 2"}
        for person in (ada, bo):
            chatted = await until(lambda: all_of(person, said), f"{person.name} has all messages")  # noqa: B023
            assert sorted(chatted) == sorted(said)
        seen, theirs = await ada.page.evaluate("seen"), await bo.page.evaluate("seen")
        assert any("Reconnecting" in text for text in seen["banners"])
        assert not seen["wasStill"] and not theirs["banners"]
        assert max(seen["gapMs"], theirs["gapMs"]) < MAX_GAP_MS, (seen, theirs)
        await asyncio.gather(ada.sees_locked("Bo"), bo.sees_locked("Ada"))
        # The relay may ask for either: the same session over another socket, or a new one.
        await ada.page.evaluate(TELL, {"leave": {"action": "RESUME", "canReconnect": True}})
        await until(lambda: resumed(3), "resumed as the relay asked")
        await ada.connected()
        assert await ada.page.evaluate("connections.length") == 2
        await ada.page.evaluate(TELL, {"leave": {"action": "RECONNECT", "canReconnect": True}})
        await until(lambda: joined_anew(ada), "joined anew as the relay asked")
        await ada.connected()
        await asyncio.gather(ada.sees_locked("Bo"), bo.sees("Ada"))
        assert await resumes(ada) == 3


AWAY = """() => {
  const Socket = WebSocket;
  const where = (url) => Object.assign(new URL(url), window.isBack ? {} : {pathname: "/nowhere"});
  window.WebSocket = class extends Socket { constructor(url) { super(where(url)); } };
}"""


@pytest.mark.matrix
async def test_what_is_switched_while_the_connection_is_away_holds_when_it_is_back() -> None:
    async with call_over_a_wire() as (wire, ada, bo):
        await ada.page.evaluate(AWAY)
        wire.cut()
        await ada.page.wait_for_selector("#call.is-reconnecting:not(.is-still)")
        await ada.press("#call-microphone")
        await ada.press("#call-screen")
        await bo.press("#call-microphone")
        await ada.page.wait_for_selector(".tile.is-local.is-screen.has-video")
        await ada.page.evaluate("() => { window.isBack = true; }")
        await ada.connected()
        await bo.sees_locked("Ada, screen")

        async def knows(one: Guest, other: str) -> bool:
            return bool((await one.tile(other) or {}).get("isMuted"))

        await until(lambda: knows(bo, "Ada"), "Bo knows that Ada is muted")
        await until(lambda: knows(ada, "Bo"), "Ada knows that Bo is muted")
        assert await ada.page.evaluate("connections.length") == 2


async def test_what_the_relay_has_not_had_is_sent_again_and_dropped_where_it_came_twice() -> None:
    async with modules() as page:
        had = await page.evaluate(
            """async () => {
              const { Received, Sent } = await import("/js/reliable.js");
              const { decodePacket } = await import("/js/datapacket.js");
              const [near, far] = [new RTCPeerConnection(), new RTCPeerConnection()];
              near.onicecandidate = ({candidate}) => far.addIceCandidate(candidate);
              far.onicecandidate = ({candidate}) => near.addIceCandidate(candidate);
              const sent = new Sent(near.createDataChannel("_reliable"));
              const say = (topic) => sent.send({user: {topic}});
              say("one");
              const came = [];
              const received = new Received();
              const taken = [];
              const all = new Promise((resolve) => {
                far.ondatachannel = ({channel}) => {
                  channel.binaryType = "arraybuffer";
                  channel.onmessage = ({data}) => {
                    const packet = {...decodePacket(data), participantSid: "PA_x"};
                    came.push(packet.user.topic);
                    if (received.take(packet)) taken.push(packet.user.topic);
                    if (packet.user.topic === "end") resolve();
                  };
                };
              });
              await near.setLocalDescription(await near.createOffer());
              await far.setRemoteDescription(near.localDescription);
              await far.setLocalDescription(await far.createAnswer());
              await near.setRemoteDescription(far.localDescription);
              say("two");
              say("three");
              await new Promise((done) => { const wait = () => (came.length === 3 ? done() : setTimeout(wait, 10)); wait(); });
              sent.resend(1);
              say("end");
              await all;
              const states = received.states();
              near.close();
              far.close();
              return {came, taken, states};
            }"""
        )
    assert had["came"] == ["one", "two", "three", "two", "three", "end"]
    assert had["taken"] == ["one", "two", "three", "end"]
    assert had["states"] == [{"publisherSid": "PA_x", "lastSeq": 4}]

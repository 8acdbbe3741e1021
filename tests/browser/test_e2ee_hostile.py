"""The page's encryption beside a relay that means ill: it names people and tracks as it likes, and sends what nobody sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.e2ee import framing, linkkey, sframe
from relaycore import frameseal
from tests.browser.test_e2ee_modules import FRAMES, LINK_KEY, run
from tests.support.relay_process import relay_process
from tests.support.web_guest import guest

pytestmark = pytest.mark.browser

E2EE = """const { E2ee } = await import("/js/e2ee/e2ee.js");
const quiet = {onLock() {}, onSealed() {}, onLeak() {}};
const person = () => new E2ee({format: "sframe", key: hex(given.key)}, quiet);
"""


async def test_whatever_names_the_relay_gives_no_two_publications_get_one_key_and_counter() -> None:
    said = await run(
        E2EE
        + """const out = [];
        // A page, and the same page after a new connection; both are told the same names, for microphone and camera alike.
        for (const e2ee of [person(), person()]) {
          for (const cid of ["microphone", "camera"]) {
            e2ee.protect({}, cid);
            out.push(e2ee.begin(cid, "ana", "TR_1"));
          }
          // The same message again, or with another name, begins nothing anew.
          out.push(e2ee.begin("camera", "ana", "TR_2"), e2ee.begin("camera", "ana", "TR_1"));
          e2ee.close();
        }
        return out.map((said) => said && new TextDecoder().decode(said.user.payload));""",
        {"key": LINK_KEY.hex()},
    )
    told = [json.loads(one)["kids"] for one in said if one]
    assert len(told) == 4 and all(first == last < 1 << 40 for first, last in told)
    assert len({first for first, _ in told}) == 4


async def test_a_publication_opens_under_the_one_kid_its_first_frame_opened_under() -> None:
    base, kid, other = linkkey.publication_key(LINK_KEY, "ana", "TR_1"), linkkey.new_kid(), linkkey.new_kid()
    now, before = sframe.Sealer(sframe.FrameKey(base, kid)), sframe.Sealer(sframe.FrameKey(base, other))
    forged = sframe.Sealer(sframe.FrameKey(bytes(16), 1 << 63))
    frames = [framing.seal(sealer, "vp8", FRAMES["vp8"]) for sealer in (forged, now, before, forged, now)]
    found = await run(
        """const { SframeOpener } = await import("/js/e2ee/sframe.js");
        const base = await keys.publicationKey(hex(given.key), "ana", "TR_1");
        const opener = new SframeOpener((kid) => keys.sframeKeys(base, kid));
        const out = [];
        for (const frame of given.frames) out.push(await failure(() => opener.open("vp8", hex(frame))));
        return out;""",
        {"key": LINK_KEY.hex(), "frames": [frame.hex() for frame in frames]},
    )
    opened = {"plain": FRAMES["vp8"].hex()}
    assert found == [{"reason": "mismatch"}, opened, {"reason": "missing"}, {"reason": "missing"}, opened]


async def test_what_is_written_in_clear_beside_a_sealed_message_and_what_comes_again_is_not_shown() -> None:
    shown: list[list[str]] = await run(
        E2EE
        + """const { Chat } = await import("/js/chat.js");
        const { encodePacket, encodePayload } = await import("/js/datapacket.js");
        const { createStore, initialState } = await import("/js/store.js");
        const e2ee = person();
        const seal = async (content) => e2ee.sealData("bo", encodePayload(content));
        const chat = {id: "1", timestamp: 1, message: "the relay's own"};
        const garbage = {type: 2, iv: new Uint8Array(12), keyIndex: 0, value: new Uint8Array(40)};
        const sealed = await seal({chat: {id: "2", timestamp: 1, message: "of Bo"}});
        const packets = [
          {chat}, {chat, encrypted: garbage},
          // It opens, to nothing that can be read.
          {chat, encrypted: await e2ee.sealData("bo", Uint8Array.of(10, 99))}, {chat, encrypted: await seal({})},
          {encrypted: sealed}, {encrypted: sealed, sequence: 7},
        ];
        const store = createStore(initialState());
        const talk = new Chat(store, () => {});
        talk.e2ee = e2ee;
        for (const packet of packets) {
          talk.onData(encodePacket({participantIdentity: "bo", ...packet}).buffer, new Map());
          await new Promise((done) => setTimeout(done, 20));
        }
        e2ee.close();
        return store.state.messages.map(({text}) => text);""",
        {"key": LINK_KEY.hex()},
    )
    assert shown == ["of Bo"]


async def test_the_panel_claims_nothing_before_a_shared_screen_was_seen_to_be_sealed() -> None:
    said = await run(
        """const { securityPanel } = await import("/js/security.js");
        const off = {on: false}, state = {secret: {format: "sframe"}, isSealed: false, hasLeaked: false, microphone: off, camera: off};
        const show = securityPanel();
        const word = () => document.getElementById("call-security-text").textContent;
        return [off, {on: true}].map((screenShare) => (show({...state, screenShare}), word()));""",
        None,
    )
    assert said == ["Encrypted", "Checking encryption…"]


async def test_native_sealer_library_and_page_open_each_others_frames() -> None:
    base, kid = linkkey.publication_key(LINK_KEY, "ana", "TR_1"), linkkey.new_kid()
    given: dict[str, Any] = {}
    for codec in framing.CODECS:
        given[codec] = frameseal.sframe(*sframe.derive(base, kid), kid, codec=codec).seal(FRAMES[codec], keyframe=True).hex()
        assert bytes.fromhex(given[codec]) == framing.seal(
            sframe.Sealer(sframe.FrameKey(base, kid)), codec, FRAMES[codec], is_keyframe=True
        )
    found = await run(
        """const { SframeOpener } = await import("/js/e2ee/sframe.js");
        const base = await keys.publicationKey(hex(given.key), "ana", "TR_1");
        const out = {};
        for (const [codec, sealed] of Object.entries(given.sealed)) {
          const opener = new SframeOpener((kid) => keys.sframeKeys(base, kid));
          const plain = await opener.open(codec, hex(sealed));
          const cipher = new SframeCipher(await keys.sframeKeys(base, given.kid), given.kid);
          out[codec] = [unhex(plain), unhex(await cipher.seal(codec, plain, {isKeyframe: true}))];
        }
        return out;""",
        {"key": LINK_KEY.hex(), "sealed": given, "kid": kid},
    )
    assert found == {codec: [FRAMES[codec].hex(), given[codec]] for codec in framing.CODECS}


async def test_nobody_comes_back_into_a_call_with_a_passphrase_without_it() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", fragment="room=r&passphrase=") as ada:
        await ada.page.fill("#join-name", "Ada")
        await ada.page.click("#join-button")
        await ada.page.wait_for_selector("#join-passphrase[aria-invalid=true]")
        assert "has a passphrase" in await ada.text("#e2ee-hint")
        assert not ada.sent and await ada.page.is_visible("#join-button >> text=Join now")


async def test_a_browser_that_cannot_encrypt_is_not_let_into_an_encrypted_call() -> None:
    key = linkkey.fragment(LINK_KEY).lstrip("#")
    async with (
        relay_process() as relay,
        guest(relay.origin, "Ada", fragment=f"room=r&{key}", script="delete self.RTCRtpScriptTransform;") as ada,
    ):
        await ada.page.fill("#join-name", "Ada")
        await ada.page.click("#join-button")
        await ada.page.wait_for_selector("#join-problem >> text=cannot encrypt")
        assert not ada.sent_of("addTrack") and not ada.sent_of("offer")

"""The built-in page against the real relay: two people see and hear each other, and every failure says what to do."""

import asyncio
import contextlib
import itertools
import json
import signal
from collections.abc import AsyncIterator

import pytest

from relay.clock import wall_s
from relay.config import DEV_KEY, DEV_SECRET, ApiKey
from relay.signaling import invites
from tests.support.browsers import firefox
from tests.support.relay_process import free_port, relay_process
from tests.support.web_guest import Guest, guest, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DEV = ApiKey(DEV_KEY, DEV_SECRET)


@contextlib.asynccontextmanager
async def two_people(origin: str, room: str) -> AsyncIterator[tuple[Guest, Guest]]:
    async with guest(origin, "Ada Lovelace", room=room) as ada, guest(origin, "Bo", room=room) as bo:
        await ada.join()
        await bo.join()
        yield ada, bo


async def test_two_people_see_hear_mute_write_leave_and_come_back() -> None:
    async with relay_process() as relay, two_people(relay.origin, "r1") as (ada, bo):
        await asyncio.gather(ada.sees("Bo"), bo.sees("Ada Lovelace"))
        await until(ada.hears_something, "Ada hears Bo")
        await until(bo.hears_something, "Bo hears Ada")
        assert await ada.text("#call-count") == "2"

        # A muted microphone shows at the other side within a second, by button and by key.
        async def is_muted() -> bool:
            return bool((await bo.tile("Ada Lovelace") or {}).get("isMuted"))

        async def is_audible() -> bool:
            return not await is_muted()

        await ada.press("#call-microphone")
        await until(is_muted, "Bo sees that Ada is muted", within_s=1.0)
        await until(lambda: silence(bo), "Bo hears nothing")
        await ada.page.keyboard.press("m")
        await until(is_audible, "Bo sees that Ada is audible", within_s=1.0)
        await until(bo.hears_something, "Bo hears Ada again")

        # A camera that is off is an avatar, and really off.
        async def is_avatar() -> bool:
            tile = await bo.tile("Ada Lovelace")
            return bool(tile and tile["isAvatarShown"] and not tile["hasVideo"] and tile["initials"] == "AL")

        await ada.page.keyboard.press("v")
        await until(is_avatar, "Bo sees Ada's initials", within_s=1.0)
        assert await ada.page.get_attribute("#call-camera", "aria-pressed") == "false"
        await ada.press("#call-camera")
        await bo.sees("Ada Lovelace")

        # Chat, both ways; keys typed into it are text.
        await ada.press("#call-chat")
        await ada.page.keyboard.type("move <b>vim</b> https://example.org/x.")
        await ada.page.keyboard.press("Enter")
        await bo.page.wait_for_selector("#call-unread:not([hidden])")
        await bo.press("#call-chat")
        assert await bo.text("#chat-list .chat-text") == "move <b>vim</b> https://example.org/x."
        assert await bo.page.get_attribute("#chat-list a", "href") == "https://example.org/x"
        assert await bo.text("#chat-list strong") == "Ada Lovelace"
        assert await ada.page.get_attribute("#call-microphone", "aria-pressed") == "true"
        await bo.page.keyboard.type("got it")
        await bo.page.keyboard.press("Enter")
        await until(lambda: has_text(ada, "#chat-list", "got it"), "Ada reads Bo's answer")

        # Leaving is seen at once; coming back works.
        await bo.press("#call-leave")
        assert await bo.text("#ended-title") == "You left the call"
        await until(lambda: is_alone(ada), "Ada is alone", within_s=2.0)
        await bo.press("#ended-rejoin")
        await bo.connected()
        await asyncio.gather(ada.sees("Bo"), bo.sees("Ada Lovelace"))


async def test_camera_that_was_off_in_the_lobby_is_published_when_it_is_turned_on() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r") as ada:
        await ada.page.wait_for_selector("#preview.has-video")
        await ada.press("#lobby-camera")
        await ada.press("#lobby-microphone")
        await ada.page.wait_for_selector("#preview:not(.has-video)")
        assert "camera and microphone off" in await ada.text("#join-hint")
        await ada.join(media=False)
        async with guest(relay.origin, "Bo", room="r") as bo:
            await bo.join()
            tile = await until(lambda: bo.tile("Ada"), "Bo has a tile of Ada")
            assert tile["isMuted"] and tile["isAvatarShown"]
            await ada.press("#call-camera")
            await bo.sees("Ada")
            await ada.press("#call-microphone")
            await until(bo.hears_something, "Bo hears Ada")


async def test_relay_is_told_how_large_videos_are_shown_and_that_the_page_is_hidden() -> None:
    async with relay_process() as relay, two_people(relay.origin, "r") as (ada, bo):
        await ada.page.set_viewport_size({"width": 1280, "height": 800})
        await ada.sees("Bo")

        def latest() -> dict[str, object]:
            frames = ada.sent_of("trackSetting")
            return json.loads(frames[-1])["trackSetting"] if frames else {}

        async def fits(above: int, below: int) -> bool:
            tile = await ada.tile("Bo")
            told = latest()
            size = (told.get("width"), told.get("height"))
            return bool(tile and size == (tile["box"]["width"], tile["box"]["height"]) and above < size[0] < below)

        await until(lambda: fits(500, 700), "the relay knows the size of Bo's tile")
        await ada.page.set_viewport_size({"width": 420, "height": 760})
        await until(lambda: fits(200, 420), "the relay knows the new size")
        before = len(ada.sent_of("trackSetting"))
        await ada.page.evaluate(
            """() => {
              Object.defineProperty(document, "hidden", {value: true, configurable: true});
              document.dispatchEvent(new Event("visibilitychange"));
            }"""
        )
        await until(lambda: holds(latest().get("disabled") is True), "nothing is wanted while the page is hidden")
        assert len(ada.sent_of("trackSetting")) == before + 1


async def test_shared_screen_is_shown_large_until_it_is_stopped() -> None:
    async with relay_process() as relay, two_people(relay.origin, "r") as (ada, bo):
        await bo.sees("Ada Lovelace")
        await ada.press("#call-screen")
        await bo.sees("Ada Lovelace, screen")
        screen, face = await bo.tile("Ada Lovelace, screen"), await bo.tile("Ada Lovelace")
        assert screen and face and screen["isScreen"]
        assert screen["box"]["width"] > 2 * face["box"]["width"]
        await ada.press("#call-screen")
        await until(lambda: has_tiles(bo, 2), "the screen is gone at the other side")
        # A second time, over a new section of the description.
        await ada.press("#call-screen")
        await bo.sees("Ada Lovelace, screen")
        await bo.sees("Ada Lovelace")


async def test_simulcast_has_three_encodings_and_speech_is_mono_with_dtx() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r") as ada:
        await ada.join()
        offer = json.loads(ada.sent_of("offer")[-1])["offer"]["sdp"]
        assert "a=simulcast:send q;h;f" in offer
        tracks = [json.loads(frame)["addTrack"] for frame in ada.sent_of("addTrack")]
        layers = next(track["layers"] for track in tracks if track["source"] == "CAMERA")
        assert [(layer["rid"], layer["width"], layer["height"]) for layer in layers] == [
            ("q", 320, 180),
            ("h", 640, 360),
            ("f", 1280, 720),
        ]


async def test_relay_that_dies_and_comes_back_finds_its_people_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second relay listens where the first did.
    ports = itertools.cycle([free_port(), free_port(), free_port()])
    monkeypatch.setattr("tests.support.relay_process.free_port", lambda: next(ports))
    async with contextlib.AsyncExitStack() as people:
        async with relay_process() as relay:
            ada, bo = await people.enter_async_context(two_people(relay.origin, "r"))
            await ada.sees("Bo")
            relay.process.send_signal(signal.SIGKILL)
            await relay.process.wait()
            await ada.page.wait_for_selector("#call.is-reconnecting #banner:not([hidden])")
            assert "Reconnecting" in await ada.text("#banner")
        async with relay_process():
            await asyncio.gather(ada.connected(), bo.connected())
            await asyncio.gather(ada.sees("Bo"), bo.sees("Ada Lovelace"))


async def test_relay_that_shuts_down_asks_people_back_and_has_them_when_it_is_there_again() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r") as ada:
        await ada.join()
        await relay.stop()
        await ada.page.wait_for_selector("#call.is-reconnecting #banner:not([hidden])")
        await relay.start()
        await ada.connected()


async def test_invite_opens_its_room_and_nothing_else() -> None:
    invite = invites.mint(DEV, "Board room", ttl_s=600)
    async with relay_process() as relay, guest(relay.origin, "Ada", fragment=f"invite={invite}") as ada:
        assert "Board room" in await ada.text("#join-text")
        assert await ada.page.is_hidden("#room-field")
        await ada.join()
        assert await ada.text("#call-room") == "Board room"
        # The fragment that holds the invite is never part of a request.
        assert invite not in relay.log_text()
        await ada.page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
        await ada.press("#call-link")
        assert await ada.page.evaluate("copied") == f"{relay.origin}/#invite={invite}"


async def test_invites_that_do_not_open_say_why() -> None:
    expired = invites.mint(DEV, "r", ttl_s=60, now_s=wall_s() - 3600)
    forged = invites.mint(ApiKey(DEV_KEY, "another secret, as long as it needs to be"), "r")
    async with relay_process() as relay, guest(relay.origin, "Ada", fragment=f"invite={expired}") as ada:
        assert "expired" in await ada.text("#join-problem")
        for fragment, words in ((f"invite={forged}", "does not open the room"), ("invite=nonsense", "does not open")):
            await ada.page.goto("about:blank")
            await ada.open(f"{relay.origin}/#{fragment}")
            await ada.page.fill("#join-name", "Ada")
            await ada.press("#join-button")
            await ada.page.wait_for_selector("#join-problem:not([hidden])")
            assert words in await ada.text("#join-problem")


async def test_room_that_is_full_says_so() -> None:
    environ = {"VEIL_LIMITS_PARTICIPANTS_PER_ROOM": "1"}
    async with relay_process(environ=environ) as relay, guest(relay.origin, "Ada", room="r") as ada:
        await ada.join()
        async with guest(relay.origin, "Bo", room="r") as bo:
            await bo.page.fill("#join-name", "Bo")
            await bo.press("#join-button")
            await bo.page.wait_for_selector("#join-problem:not([hidden])")
            assert "full" in await bo.text("#join-problem")
            assert await bo.text("#join-button") == "Join now"


async def test_server_that_takes_invites_only_asks_for_one() -> None:
    key = ApiKey("VKtest", "a-secret-that-is-long-enough-for-anybody")
    environ = {"VEIL_KEYS": f"{key.key}:{key.secret}", "VEIL_SERVER_BIND_IP": "127.0.0.1"}
    async with relay_process(environ=environ, arguments=()) as relay, guest(relay.origin, "Ada", room="r") as ada:
        await ada.page.wait_for_selector("#invite-form:not([hidden])")
        await ada.page.fill("#invite-link", "https://example.org/")
        await ada.page.keyboard.press("Enter")
        assert "no invite link" in await ada.text("#invite-problem")
        await ada.page.fill("#invite-link", invites.link(relay.origin, invites.mint(key, "r")))
        await ada.page.keyboard.press("Enter")
        await ada.page.wait_for_selector("#join-form:not([hidden])")
        await ada.join()


async def test_blocked_camera_is_explained_and_does_not_keep_anybody_out() -> None:
    flags = ("--use-fake-ui-for-media-stream=deny",)
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r", flags=flags) as ada:
        await ada.page.wait_for_selector("#lobby-problems > :not([hidden])")
        # One reason for both is said once.
        assert "Camera and microphone are blocked" in await ada.text("#lobby-problems")
        assert await ada.page.locator("#lobby-problems > :visible").count() == 1
        await ada.join(media=False)
        tile = await ada.tile("Ada (you)")
        assert tile and tile["isAvatarShown"] and tile["isMuted"]
        # Trying again in the call says the same where it is seen.
        await ada.press("#call-camera")
        await ada.page.wait_for_selector(".notice.is-problem")
        assert "Camera is blocked" in await ada.text("#notices")


async def test_missing_camera_leaves_the_microphone() -> None:
    flags = ("--use-fake-device-for-media-stream=device-count=0",)
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r", flags=flags) as ada:
        await ada.page.wait_for_selector("#lobby-problems > :not([hidden])")
        assert "No camera found" in await ada.text("#lobby-problems")
        assert await ada.page.is_hidden("#lobby-problems [data-source=microphone]")
        assert await ada.page.get_attribute("#lobby-microphone", "aria-pressed") == "true"


BUSY_CAMERA = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  if (wanted.video && window.isBusy !== false) throw new DOMException("Could not start video source", "NotReadableError");
  return open(wanted);
};
"""


async def test_camera_in_use_can_be_tried_again() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r", script=BUSY_CAMERA) as ada:
        await ada.page.wait_for_selector("#lobby-problems > :not([hidden])")
        assert "in use" in await ada.text("#lobby-problems")
        assert await ada.page.get_attribute("#lobby-microphone", "aria-pressed") == "true"
        await ada.page.evaluate("() => { window.isBusy = false; }")
        await ada.press("#lobby-problems [data-source=camera] button")
        await ada.page.wait_for_selector("#preview.has-video")
        assert await ada.page.locator("#lobby-problems > :visible").count() == 0


async def test_page_without_https_says_why_there_is_no_camera() -> None:
    flags = ("--host-resolver-rules=MAP veil.test 127.0.0.1",)
    async with relay_process() as relay:
        async with guest(f"http://veil.test:{relay.port}", "Ada", room="r", flags=flags) as ada:
            await ada.page.wait_for_selector("#lobby-problems > :not([hidden])")
            assert "HTTPS" in await ada.text("#lobby-problems")


BLOCKED_SOUND = """
const play = HTMLAudioElement.prototype.play;
HTMLAudioElement.prototype.play = function () {
  return navigator.userActivation.isActive && window.mayPlay
    ? HTMLMediaElement.prototype.play.call(this)
    : (this.pause(), Promise.reject(new DOMException("no gesture", "NotAllowedError")));
};
"""


async def test_sound_that_the_browser_holds_back_is_one_tap_away() -> None:
    async with relay_process() as relay, guest(relay.origin, "Bo", room="r") as bo:
        await bo.join()
        async with guest(relay.origin, "Ada", room="r", script=BLOCKED_SOUND) as ada:
            await ada.join()
            await ada.page.wait_for_selector("#listen:not([hidden])")
            await ada.page.evaluate("() => { window.mayPlay = true; }")
            await ada.press("#listen")
            await until(ada.hears_something, "Ada hears Bo after a tap")
            assert await ada.page.is_hidden("#listen")


BLOCKED_MEDIA = """
const Plain = RTCPeerConnection;
window.RTCPeerConnection = class extends Plain { constructor(c) { super({...c, iceTransportPolicy: "relay"}); } };
"""


@pytest.mark.long
async def test_network_that_lets_no_media_through_is_named_as_the_reason() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r", script=BLOCKED_MEDIA) as ada:
        await ada.page.wait_for_selector("#preview.has-video")
        await ada.page.fill("#join-name", "Ada")
        await ada.press("#join-button")
        await ada.page.wait_for_selector("#banner:not([hidden])")
        assert "Connecting" in await ada.text("#banner")
        await ada.page.wait_for_selector("#ended:not([hidden])", timeout=60_000)
        assert await ada.text("#ended-title") == "Audio and video cannot get through"
        assert "UDP" in await ada.text("#ended-text")
        assert await ada.page.is_visible("#ended-rejoin")


async def test_address_of_the_page_leads_back_into_the_room() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada") as ada:
        await ada.page.fill("#join-room", "tea & cake")
        await ada.join()
        await ada.page.reload()
        await ada.page.wait_for_selector("#preview.has-video")
        assert await ada.page.input_value("#join-room") == "tea & cake"
        assert await ada.page.input_value("#join-name") == "Ada"


async def test_other_camera_is_used_and_remembered() -> None:
    # Chromium's second fake camera is one for depth, which no encoder takes.
    flags = ("--use-fake-device-for-media-stream=device-count=3",)
    async with relay_process() as relay, guest(relay.origin, "Bo", room="r") as bo:
        await bo.join()
        async with guest(relay.origin, "Ada", room="r", flags=flags) as ada:
            await ada.join()
            await bo.sees("Ada")
            await ada.press("#call-settings")
            options = "[...document.querySelector('#call-videoinput').options].map((o) => o.value)"
            first, _, third = await ada.page.evaluate(options)
            assert await ada.page.input_value("#call-videoinput") == first
            await ada.page.select_option("#call-videoinput", third)
            await until(lambda: uses(ada, third), "the other camera is in use")
            await bo.sees("Ada")
            await ada.page.reload()
            await ada.page.wait_for_selector("#preview.has-video")
            await until(lambda: uses(ada, third, "#preview-video"), "the other camera is remembered")


async def test_firefox_and_chromium_see_each_other() -> None:
    async with relay_process() as relay, guest(relay.origin, "Ada", room="r") as ada, firefox() as fox:
        await ada.join()
        await fox.goto(f"{relay.origin}/#room=r")
        video = "(selector) => document.querySelector(selector)?.videoWidth ?? 0"
        await until(lambda: fox.evaluate(video, "#preview-video"), "Firefox shows its camera")
        await fox.evaluate(
            """() => {
              document.querySelector("#join-name").value = "Fox";
              document.querySelector("#join-button").click();
            }"""
        )
        await ada.sees("Fox")
        await until(ada.hears_something, "Ada hears Fox")
        frames = """() => {
          const tile = [...document.querySelectorAll(".tile:not(.is-local) video")][0];
          return tile && tile.videoWidth ? tile.currentTime : 0;
        }"""
        # Headless Firefox counts no painted frames, but its clock runs only while frames come.
        start = await until(lambda: fox.evaluate(frames), "Firefox sees Ada")
        await until(lambda: exceeds(fox, frames, start + 1), "Firefox sees Ada move")
        await fox.evaluate("() => { document.querySelector('#call-microphone').click(); }")
        await until(lambda: shows_muted(ada, "Fox"), "Ada sees that Fox is muted", within_s=1.5)


async def silence(person: Guest) -> bool:
    return not await person.hears_something()


async def has_text(person: Guest, selector: str, text: str) -> bool:
    return text in await person.text(selector)


async def is_alone(person: Guest) -> bool:
    return len(await person.tiles()) == 1 and await person.page.is_visible("#call-alone")


async def holds(fact: bool) -> bool:
    return fact


async def has_tiles(person: Guest, count: int) -> bool:
    return len(await person.tiles()) == count


async def uses(person: Guest, device: str, selector: str = ".tile.is-local video") -> bool:
    found = await person.page.evaluate(
        "(selector) => document.querySelector(selector).srcObject?.getVideoTracks()[0]?.getSettings().deviceId", selector
    )
    return found == device


async def exceeds(page: object, function: str, number: float) -> bool:
    return await page.evaluate(function) > number  # type: ignore[attr-defined]


async def shows_muted(person: Guest, name: str) -> bool:
    tile = await person.tile(name)
    return bool(tile and tile["isMuted"])

"""The part of `make interop` that every test run can afford: the oldest and newest clients of each kind, once."""

import re

import pytest

from tests.interop.clients.base import State
from tests.interop.clients.cast import SINGLE, cast
from tests.interop.matrix import Check, Leg, encodings, everybody, judged, pair
from tests.support.relay_process import relay_process

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(300)]


def failures(results: list[Leg] | list[Check]) -> list[str]:
    return [str(result) for result in results if not result.passed]


# Rule 6 of DESIGN §3: what must not be mapped into a relay that has carried a call.
CODECS = re.compile(r"libav|vpx|opus|dav1d|x26[45]|openh264|ctranslate2|swscale|pylibsrtp", re.I)

CONNECTIONS = re.compile(r"participant joined .*\bconnections=(\d)")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("one", "two"), [("chromium-old", "python-new"), ("firefox-new", "chromium-new"), ("built-in", "python-old")]
)
async def test_two_clients_exchange_audio_video_and_data(one: str, two: str) -> None:
    async with relay_process() as relay, cast([one, two]) as clients:
        assert failures(await pair(relay, clients[one], clients[two])) == []
        assert CONNECTIONS.findall(relay.log_text()) == ["1" if name in SINGLE else "2" for name in (one, two)]
        assert CODECS.findall(relay.maps()) == []


def test_a_codec_in_the_maps_is_found() -> None:
    assert CODECS.findall("7f00-7f01 r-xp 00000000 08:01 42 /usr/lib/x86_64-linux-gnu/libvpx.so.7.0.0") == ["vpx"]


async def test_mute_leave_and_rejoin_are_seen_in_time() -> None:
    async with relay_process() as relay, cast(["python-new", "python-old"]) as clients:
        assert failures(await everybody(relay, list(clients.values()))) == []


@pytest.mark.browser
async def test_a_lone_720p_publisher_reaches_three_encodings() -> None:
    async with relay_process() as relay, cast(["chromium-new", "chromium-old"]) as clients:
        assert failures(await encodings(relay, clients["chromium-new"], clients["chromium-old"])) == []


@pytest.mark.parametrize(
    "leg",
    [
        Leg("a", "b", 0.79, 640, 1.0, True, True),
        Leg("a", "b", 1.0, 640, 0.89, True, True),
        Leg("a", "b", 1.0, 640, 1.0, False, True),
        Leg("a", "b", 1.0, 640, 1.0, True, False),
    ],
)
def test_a_bad_leg_is_judged_bad(leg: Leg) -> None:
    assert not judged(leg, State("connected")).passed
    assert judged(Leg("a", "b", 0.8, 640, 0.9, True, True), State("connected")).passed

"""What a client says about itself in its URL."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.quality.choice import BEST, Quality, Wanted
from relay.signaling.livekit.client_info import ClientInfo, read_client_info
from relay.signaling.livekit.http import endpoint
from relay.signaling.livekit.tokens import read_grant
from tests.support.local_relay import KEYS, token


def test_the_url_of_the_python_sdk() -> None:
    query = {"sdk": "python", "protocol": "16", "auto_subscribe": "1", "adaptive_stream": "0", "version": "1.0.25"}
    info = read_client_info(query)
    assert (info.sdk, info.version, info.protocol, info.auto_subscribe) == ("python", "1.0.25", 16, True)
    assert not info.reconnect and not info.wants_json


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("true", True), ("True", True), ("0", False), ("", False)]
)
def test_truth_is_1_or_true(value: str, expected: bool) -> None:
    info = read_client_info({"auto_subscribe": value, "reconnect": value, "veil_json": value})
    assert (info.auto_subscribe, info.reconnect, info.wants_json) == (expected, expected, expected)


def test_silence_means_subscribe_to_all() -> None:
    assert read_client_info({}).auto_subscribe


def test_adaptive_stream_begins_with_the_least() -> None:
    grant = read_grant(token(), KEYS)
    wanted = [endpoint(grant, read_client_info({"adaptive_stream": word})).default_wanted for word in ("1", "0", "")]
    assert wanted == [Wanted(quality=Quality.LOW), BEST, BEST]


@pytest.mark.parametrize("value", ["", "-1", "x", "1e3", "²", "9" * 30])
def test_a_protocol_that_is_no_number_is_the_usual_one(value: str) -> None:
    assert read_client_info({"protocol": value}).protocol == 16


def test_attributes_of_the_go_sdk() -> None:
    text = base64.urlsafe_b64encode(json.dumps({"a": "1", "b": 2}).encode()).rstrip(b"=").decode()
    assert read_client_info({"attributes": text}).attributes == (("a", "1"),)


@pytest.mark.parametrize("value", ["!", "AAAA", "WzFd", "x" * 70_000])
def test_attributes_that_cannot_be_read_are_none(value: str) -> None:
    assert read_client_info({"attributes": value}).attributes == ()


keys = ("protocol", "sdk", "version", "capabilities", "attributes", "sid", "client_protocol", "auto_subscribe")


@given(st.dictionaries(st.sampled_from(keys), st.text(max_size=80)))
def test_any_query_is_read(query: dict[str, str]) -> None:
    assert isinstance(read_client_info(query), ClientInfo)

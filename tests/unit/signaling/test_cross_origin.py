"""Pages of `server.web_origin` may read what this relay answers the web client; pages of every other origin may not."""

import dataclasses

import pytest

from relay.server import Server
from relay.signaling import invites
from tests.support.local_relay import KEYS, settings

# In another spelling than browsers send.
SETTING, ORIGIN = "https://Page.example:443", "https://page.example"
READABLE = "Access-Control-Allow-Origin"
STRANGERS = ["https://evil.example", "http://page.example", "https://page.example:8443", "https://page.example.evil.example", "null"]


@pytest.fixture
async def relay():
    config = settings()
    server = Server(dataclasses.replace(config, server=dataclasses.replace(config.server, web_origin=SETTING)), strict=True)
    await server.start()
    yield server
    await server.stop()


def at(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.http_port}{path}"


def asked(origin: str) -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.mark.parametrize("path", ["/client/config", "/hashes.json"])
async def test_the_clients_own_pages_are_answered(path: str, relay, http) -> None:
    async with http.get(at(relay, path), headers={"Origin": ORIGIN}) as answer:
        assert answer.status == 200 and answer.headers[READABLE] == ORIGIN and answer.headers["Vary"] == "Origin"


async def test_an_invite_is_traded_for_a_token_and_a_refusal_can_be_read(relay, http) -> None:
    async with http.options(at(relay, "/client/join"), headers=asked(ORIGIN)) as answer:
        assert answer.status == 204 and answer.headers[READABLE] == ORIGIN
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type"
    for invite, status in ((invites.mint(KEYS.find("akey"), "planning"), 200), ("nonsense", 401)):
        body = {"invite": invite, "name": "Ana"}
        async with http.post(at(relay, "/client/join"), json=body, headers={"Origin": ORIGIN}) as answer:
            assert answer.status == status and answer.headers[READABLE] == ORIGIN


@pytest.mark.parametrize("origin", STRANGERS)
async def test_other_pages_may_neither_ask_nor_read(origin: str, relay, http) -> None:
    for path in ("/client/join", "/client/dev-join", "/client/config", "/hashes.json"):
        async with http.options(at(relay, path), headers=asked(origin)) as answer:
            assert answer.status >= 400 and READABLE not in answer.headers
        async with http.get(at(relay, path), headers={"Origin": origin}) as answer:
            assert READABLE not in answer.headers


async def test_pages_are_told_nothing_that_is_not_for_the_client(relay, http) -> None:
    for path in ("/", "/js/main.js", "/metrics", "/healthz", "/debug/log", "/nothing"):
        async with http.get(at(relay, path), headers={"Origin": ORIGIN}) as answer:
            assert READABLE not in answer.headers


async def test_without_the_setting_no_page_of_another_origin_is_answered(start, http) -> None:
    server = await start()
    for origin in (ORIGIN, ""):
        async with http.options(at(server, "/client/join"), headers=asked(origin)) as answer:
            assert answer.status >= 400 and READABLE not in answer.headers


async def test_the_relay_says_that_it_serves_its_own_page(relay, http) -> None:
    async with http.get(at(relay, "/relay.json")) as answer:
        assert await answer.json() == {"server": ""}

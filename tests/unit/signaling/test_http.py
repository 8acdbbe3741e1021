"""What the relay answers over HTTP before anybody has joined."""

import asyncio
import contextlib
import json
import time
import zlib

import aiohttp
import pytest

from relay.server import MAX_LINE_BYTES, Server
from relay.signaling import invites
from tests.support.local_relay import KEYS, SECRET, token
from tests.unit.signaling.test_tokens import refusals

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def at(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.http_port}{path}"


@pytest.mark.parametrize("name", ["no token", "wrong secret", "expired", "no identity", "empty room", "hidden"])
async def test_a_join_is_refused_before_the_upgrade_and_validate_agrees(name: str, relay, http) -> None:
    text, status, words = refusals()[name]
    for path, headers in (("/rtc", UPGRADE), ("/rtc/validate", {}), ("/prefix/rtc/validate", {})):
        async with http.get(at(relay, path), headers=headers, params={"access_token": text}) as answer:
            assert answer.status == status
            assert words in await answer.text()
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/rtc/validate", "//rtc/validate", "/some/path/rtc/validate"])
async def test_validate_says_success(path: str, relay, http) -> None:
    async with http.get(at(relay, path), headers={"Authorization": f"Bearer {token()}"}) as answer:
        assert (answer.status, await answer.text()) == (200, "success")


async def test_the_header_wins_over_the_query(relay, http) -> None:
    for header, query, status in ((token(), "bad", 200), ("bad", token(), 401)):
        async with http.get(
            at(relay, "/rtc/validate"), headers={"Authorization": f"Bearer {header}"}, params={"access_token": query}
        ) as answer:
            assert answer.status == status


@pytest.mark.parametrize("path", ["/rtc/v2", "/rtc/v2?join_request=AAAA", "/rtc/v2/validate", "//rtc/v2", "/p/rtc/v1/x"])
@pytest.mark.parametrize("headers", [{}, UPGRADE])
async def test_a_version_that_is_not_here_is_told_in_words_that_let_clients_fall_back(path: str, headers: dict, relay, http) -> None:
    async with http.get(at(relay, path), headers={**headers, "Authorization": f"Bearer {token()}"}) as answer:
        assert answer.status == 404
        assert "room" not in await answer.text()
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/rtc/v1", "/rtc/v1/validate", "//rtc/v1/validate", "/p/rtc/v1"])
async def test_v1_wants_a_join_request(path: str, relay, http) -> None:
    async with http.get(at(relay, path), headers={**UPGRADE, "Authorization": f"Bearer {token()}"}) as answer:
        assert (answer.status, await answer.text()) == (400, "The join_request is missing.")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/rtc", "/rtc/v1"])
async def test_rtc_without_an_upgrade_is_not_found(path: str, relay, http) -> None:
    async with http.get(at(relay, path), headers={"Authorization": f"Bearer {token()}"}) as answer:
        assert answer.status == 404


async def test_preflights_allow_what_was_asked_for(relay, http) -> None:
    headers = {"Origin": "https://else.where", "Access-Control-Request-Headers": "authorization"}
    async with http.options(at(relay, "/rtc/validate"), headers=headers) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization"
        assert "GET" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_answers_health_checks(method: str, relay, http) -> None:
    async with http.request(method, at(relay, "/")) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/../relay/config.py", "/%2e%2e/config.py", "/js/../../config.py", "/config.py"]
)
async def test_nothing_but_the_pages_own_files_is_served(path: str, relay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.http_port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404"), answer[:100]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_observation_is_mounted(path: str, relay, http) -> None:
    async with http.get(at(relay, path)) as answer:
        assert answer.status == 200


async def test_a_full_room_is_said_before_the_upgrade(start, connect, http) -> None:
    server = await start(participants_per_room=1)
    await connect("ana", to=server)
    for path, headers in (("/rtc", UPGRADE), ("/rtc/validate", {})):
        async with http.get(at(server, path), headers={**headers, "Authorization": f"Bearer {token(sub='bo')}"}) as no:
            assert no.status == 403 and "full" in await no.text()
    async with http.get(at(server, "/rtc/validate"), headers={"Authorization": f"Bearer {token(sub='ana')}"}) as yes:
        assert yes.status == 200


async def test_one_address_has_only_so_many_sockets(start, connect, http) -> None:
    server = await start(connections_per_address=1)
    ana = await connect("ana", to=server)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect("bo", to=server)
    assert refused.value.status == 429
    await ana.socket.close()
    await asyncio.sleep(0.05)
    await connect("bo", to=server)


async def test_strangers_can_use_up_neither_the_connections_nor_the_door(start, connect, http) -> None:
    server = await start(waiting_connections=3)
    ana = await connect("ana", to=server)
    silent = [await asyncio.open_connection("127.0.0.1", server.http_port) for _ in range(6)]
    for reader, _ in silent[:3]:
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b"", "the oldest go"
    async with http.get(at(server, "/metrics")) as answer:
        assert 'veil_refused_total{reason="connection_displaced"} 4.0' in await answer.text()
    for reader, _ in silent[4:]:
        assert not reader.at_eof(), "the youngest stay"
    assert not ana.socket.closed, "and so does who has shown a token"
    for _, waiting in silent:
        waiting.close()


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n"]
)
async def test_noise_is_counted_and_logs_no_traceback(noise: bytes, relay, http, caplog) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.http_port)
    writer.write(noise)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.") and b" 400 " in answer.splitlines()[0]
    assert "Traceback" not in caplog.text
    async with http.get(at(relay, "/metrics")) as answer:
        assert 'veil_refused_total{reason="http"} 1.0' in await answer.text()


@pytest.mark.parametrize("long", ["a token in the query", "a header"])
async def test_what_is_too_long_to_be_a_request_is_told_from_noise(long: str, relay, http) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.http_port)
    text = "A" * MAX_LINE_BYTES
    where = ("/rtc?access_token=" + text, "") if "query" in long else ("/rtc", f"Authorization: Bearer {text}\r\n")
    writer.write(f"GET {where[0]} HTTP/1.1\r\nHost: localhost\r\n{where[1]}\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.splitlines()[0].startswith(b"HTTP/1.") and b" 431 " in answer.splitlines()[0]
    assert answer.endswith(f"Request lines and headers have at most {MAX_LINE_BYTES} bytes.\n".encode())
    async with http.get(at(relay, "/metrics")) as answer:
        assert 'veil_refused_total{reason="http"} 1.0' in await answer.text()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\xc2\x84\0\0\0\0abcd", "signal_protocol"),
        (b"\x89\xfe\x04\x00\0\0\0\0", "signal_protocol"),
        (b"\x82\xff" + (3 << 20).to_bytes(8, "big") + b"\0\0\0\0", "signal_size"),
    ],
    ids=["compressed though never agreed", "ping longer than 125 bytes", "3 MiB"],
)
async def test_frames_that_break_the_rules_end_the_connection_and_are_counted(
    frame, reason, relay, connect, http
) -> None:
    ana = await connect("ana", to=relay)
    ana.socket._writer.transport.write(frame)
    async with asyncio.timeout(5):
        while (await ana.socket.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
            pass
    async with http.get(at(relay, "/metrics")) as answer:
        assert f'veil_refused_total{{reason="{reason}"}} 1.0' in await answer.text()


async def test_an_invite_becomes_a_token_for_its_room_only(relay, http) -> None:
    invite = invites.mint(KEYS.find("akey"), "planning", ttl_s=60, can_publish_data=False)
    async with http.post(at(relay, "/client/join"), json={"invite": invite, "name": " Ana\u0000  Lú "}) as answer:
        assert answer.status == 200 and answer.headers["Cache-Control"] == "no-store"
        body = await answer.json()
    assert body["room"] == "planning" and body["identity"].startswith("ana-l-")
    assert body["url"] == f"ws://127.0.0.1:{relay.http_port}"
    assert SECRET not in json.dumps(body)
    socket = await http.ws_connect(at(relay, "/rtc"), params={"access_token": body["token"], "veil_json": "1"})
    join = (await socket.receive_json(timeout=5))["join"]
    assert join["room"]["name"] == "planning"
    assert join["participant"]["name"] == "Ana Lú"
    assert join["participant"]["permission"] == {"canSubscribe": True, "canPublish": True}
    await socket.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"invite": 3, "name": "a"}, 400),
        ({"invite": "", "name": "a"}, 401),
        ({"invite": "nonsense", "name": "a"}, 401),
        ({"invite": token(), "name": "a"}, 401),
        ({"invite": invites.mint(KEYS.find("akey"), "r", ttl_s=1, now_s=1), "name": "a"}, 401),
        ({"invite": invites.mint(KEYS.find("akey"), "r"), "name": ""}, 400),
        ({"invite": invites.mint(KEYS.find("akey"), "r"), "name": "x" * 65}, 400),
        ({"invite": invites.mint(KEYS.find("akey"), "r"), "name": None}, 400),
        ([], 400),
    ],
)
async def test_bad_invites_are_refused_with_a_sentence(body, status: int, relay, http) -> None:
    async with http.post(at(relay, "/client/join"), json=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"].endswith(".")


async def test_compressed_bodies_are_never_inflated(relay, http) -> None:
    body = zlib.compress(bytes(64 << 20), 9)
    start = time.perf_counter()
    headers = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
    async with http.post(at(relay, "/client/join"), data=body, headers=headers) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"].startswith("The body is longer")
    assert time.perf_counter() - start < 0.1, "64 MB of zeros take longer to inflate"
    async with http.get(at(relay, "/metrics")) as answer:
        assert 'veil_refused_total{reason="client_413"} 1.0' in await answer.text()


async def test_an_invite_is_no_access_token(relay, http) -> None:
    invite = invites.mint(KEYS.find("akey"), "r")
    async with http.get(at(relay, "/rtc/validate"), params={"access_token": invite}) as answer:
        assert answer.status == 401


async def test_development_tokens_need_this_machines_name(relay, http) -> None:
    async def ask(host: str, **options) -> int:
        async with http.post(at(relay, "/client/dev-join"), headers={"Host": host}, **options) as answer:
            return answer.status

    good = {"json": {"room": "r", "name": "Ana"}}
    port = relay.http_port
    assert [await ask(f"{host}:{port}", **good) for host in ("127.0.0.1", "localhost", "[::1]")] == [200, 200, 200]
    # A name of somebody else's that leads here (DNS rebinding), and a form another site may post unasked.
    assert await ask("evil.example", **good) == 403
    assert await ask("127.0.0.1.evil.example", **good) == 403
    assert await ask(f"localhost:{port}", data=json.dumps(good["json"]), skip_auto_headers=["Content-Type"]) == 415


async def test_without_dev_there_are_no_development_tokens(start, http, monkeypatch) -> None:
    import dataclasses

    from tests.unit.signaling import conftest

    made = conftest.settings
    monkeypatch.setattr(conftest, "settings", lambda **limits: dataclasses.replace(made(**limits), dev=False))
    server = await start()
    async with http.post(at(server, "/client/dev-join"), json={"room": "r", "name": "a"}) as answer:
        assert answer.status == 404
    async with http.get(at(server, "/client/config")) as answer:
        assert await answer.json() == {"dev": False}


async def test_bodies_are_bounded(relay, http) -> None:
    async with http.post(at(relay, "/client/join"), json={"invite": "x" * 100_000, "name": "a"}) as answer:
        assert answer.status == 413

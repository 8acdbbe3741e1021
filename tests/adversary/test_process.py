"""What the relay's process holds, how it ends, and what its log never says."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from livekit.protocol import models, rtc

from relay.cli import mint_token
from relay.config import ApiKey
from relay.ids import new_sid
from relay.observe.account import LIBRARY_THREADS
from relay.server import Server
from relay.signaling.livekit.join_request import read_join_request
from tests.adversary import scene
from tests.adversary.account import counters, holding
from tests.adversary.attacker import CONNECT_S, Attacker
from tests.interop.clients.base import Client
from tests.interop.clients.cast import cast
from tests.support.local_relay import settings, token
from tests.support.relay_process import ROOT, RelayProcess, relay_process

pytestmark = [pytest.mark.timeout(90)]

# Rule 6 of DESIGN section 3.
CODEC = re.compile(r"[^\s/]*(?:libav|avcodec|vpx|opus|dav1d|x264|ctranslate2)[^\s/]*", re.I)
EMPTY_STOP_S = 2.0
# A session's last words have DRAIN_S of 1 s, beside which the rest is little.
CALL_STOP_S = 4.0
LEARN_S = 10.0
GIVEN_BACK_S = 8.0
HALFWAY = 12


def codecs_in(maps: str) -> set[str]:
    """Return the codec libraries named in a /proc/PID/maps."""
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if len(line.split(maxsplit=5)) == 6}
    return {found[0] for path in paths if (found := CODEC.search(Path(path).name))}


@pytest.fixture
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(environ={"VEIL_LOG_LEVEL": "info"}) as started:
        yield started


async def attackers(relay: RelayProcess, count: int) -> list[Attacker]:
    """Return publishers in a call."""
    tokens = [relay.token(f"eve-{i}", canSubscribe=False) for i in range(count)]
    return await asyncio.gather(*(Attacker().connect(relay.ws_url, text) for text in tokens))


async def stop_timed(relay: RelayProcess) -> tuple[int, float]:
    """Send SIGTERM; return the exit code and how long it took."""
    start = time.monotonic()
    code = await relay.stop()
    return code, time.monotonic() - start


# --- libraries ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.interop
async def test_no_codec_is_loaded_after_a_call_with_data(relay: RelayProcess) -> None:
    async with cast(["python-new"]) as one, cast(["python-new"]) as other:
        call = scene.Call(one["python-new"], other["python-new"])
        await call.start(relay)
        await one["python-new"].send_data("hello")
        await learn(other["python-new"], "data", "ana", "r:hello")
        maps = relay.maps()
    assert codecs_in(maps) == set()
    assert "usrsctp" in maps and "relaycore" in maps, "the right process, with data channels"


def test_a_loaded_codec_would_be_found() -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import av; print(open('/proc/self/maps').read())"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = " ".join(codecs_in(child.stdout))
    for library in ("libavcodec", "libavformat", "libvpx", "opus", "dav1d", "x264"):
        assert library in found
    assert codecs_in("7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libctranslate2.so.4") == {"libctranslate2.so.4"}
    assert codecs_in("7f00-7f01 r-xp 00000000 08:01 12 /home/opus/libc.so.6\n7f01-7f02 rw-p 00000000 00:00 0") == set()


# --- the end --------------------------------------------------------------------------------------------------------


async def test_an_empty_relay_ends_at_once(relay: RelayProcess) -> None:
    code, seconds = await stop_timed(relay)
    assert (code, seconds < EMPTY_STOP_S) == (0, True), seconds


def kept(log: str) -> dict[str, int]:
    """Return what a relay says that it still held when it had stopped."""
    line = next(line for line in reversed(log.splitlines()) if "_kept" in line)
    return {name: int(value) for name, value in re.findall(r"(\w+)_kept\W+(-?\d+)", re.sub(r"\x1b\[\d*m", "", line))}


NOTHING = {"threads": 0, "descriptors": 0, "tasks": 0, "slots": 0}


def need_core(core: str) -> None:
    """Skip where this build of the data plane is not there."""
    if not list((ROOT / core / "relaycore").glob("engine.*.so")):
        pytest.skip(f"{core} is not built: make debug-build")


async def learn(client: Client, what: str, identity: str, detail: str) -> None:
    """Return once a client has seen this.   Errors: TimeoutError."""
    async with asyncio.timeout(LEARN_S):
        while (await client.state()).when(what, identity, detail) is None:
            await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.parametrize("core", ["ext", "build/debug"])
@pytest.mark.parametrize("other", ["python-old", "chromium-new"])
async def test_sigterm_gives_everything_back_with_sdk_clients_in_a_call(core: str, other: str) -> None:
    """In the debug twin the plane's stop insists on every slot too, so that an exit code of 0 says so."""
    need_core(core)
    async with cast(["python-new", other]) as clients, relay_process(core=core) as relay:
        ana, bo = clients.values()
        await scene.Call(ana, bo).start(relay)
        for sender, receiver, name in ((ana, bo, "ana"), (bo, ana, "bo")):
            await sender.send_data("hello")
            await learn(receiver, "data", name, "r:hello")
        assert f"{core}/relaycore/engine" in relay.maps()
        code, seconds = await stop_timed(relay)
        log = relay.log_text()
        for client in (ana, bo):
            await learn(client, "reconnecting", "", "")
    assert code == 0, log[-3000:]
    assert seconds < CALL_STOP_S
    assert kept(log) == NOTHING, log[-2500:]


LEAKY = """
import asyncio, itertools, os, sys, threading, time
import relay.plane.pool as pool
import relay.signaling.conference as conference
leaks, asked = pool.leaks, itertools.count()
pool.leaks = lambda: leaks() | {"slots": leaks()["slots"] + next(asked)}
stop = conference.Conference.stop
async def leak(self):
    await stop(self)
    os.open("/dev/zero", os.O_RDONLY)
    threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
    self.leaked = asyncio.get_running_loop().create_task(asyncio.sleep(60))
conference.Conference.stop = leak
sys.argv = ["relay", "serve", "--dev"]
from relay.cli import main
main()
"""


@pytest.mark.parametrize("core", ["ext", "build/debug"])
async def test_the_account_sees_what_is_kept(tmp_path: Path, core: str) -> None:
    """The control: a relay that keeps a descriptor, a thread, a task and slots says so; of slots the debug twin dies."""
    need_core(core)
    script = tmp_path / "leaky.py"
    script.write_text(LEAKY)
    async with relay_process(command=(str(script),), core=core) as relay:
        code = await relay.stop()
        log = relay.log_text()
    if core == "ext":
        assert (code, kept(log)) == (0, {"threads": 1, "descriptors": 1, "tasks": 1, "slots": 2})
    else:
        assert code != 0 and "slots and descriptors kept by stopped workers: (1, 0)" in log


def own_threads(pid: int) -> list[str]:
    """Return the names of a relay's threads beside those that libraries keep for good (relay.observe.account)."""
    names = [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sorted(name for name in names if name not in LIBRARY_THREADS)


async def test_a_relay_has_its_main_thread_and_its_workers() -> None:
    async with relay_process(environ={"VEIL_MEDIA_WORKERS": "2"}) as relay:
        main = Path(f"/proc/{relay.pid}/comm").read_text().strip()
        assert own_threads(relay.pid) == [main, "veil-worker-0", "veil-worker-1"]


@pytest.mark.skipif(os.cpu_count() == 1, reason="NumPy's library starts no more threads than there are cores")
async def test_threads_of_a_library_are_seen() -> None:
    """The control: what NumPy brings where it is let."""
    async with relay_process(environ={"OPENBLAS_NUM_THREADS": "2"}) as relay:
        assert len(own_threads(relay.pid)) == 3


def full_disk() -> int:
    """Return a descriptor that takes nothing: no space left on device."""
    return os.open("/dev/full", os.O_WRONLY)


def broken_pipe() -> int:
    """Return a descriptor whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.interop
@pytest.mark.parametrize("opened", [full_disk, broken_pipe])
async def test_calls_go_on_where_nothing_can_be_logged(opened: Callable[[], int]) -> None:
    output = opened()
    try:
        with pytest.raises(OSError):
            os.write(output, b"the control: nothing can be written\n")
        # Buffered, as people run it; then Python ends with 120 where its streams hold what cannot be written.
        async with relay_process(output=output, environ={"PYTHONUNBUFFERED": ""}) as relay:
            async with scene.call(relay) as call:
                _, before = await call.mark()
                await asyncio.sleep(1)
                _, after = await call.mark()
                assert after - before > scene.FPS / 2 and await call.is_connected()
            async with aiohttp.ClientSession() as session, session.get(f"{relay.origin}/metrics") as answer:
                lost = re.search(r"^veil_log_records_lost_total (\S+)$", await answer.text(), re.M)
            code, _ = await stop_timed(relay)
    finally:
        os.close(output)
    assert lost is not None and float(lost[1]) > 0
    assert code == 0


CLOSED = """
import os, sys
for number in {}:
    os.close(number)
os.execv(sys.executable, [sys.executable, "-m", "relay", "serve", "--dev"])
"""


@pytest.mark.parametrize("closed", [(0, 1, 2), (1,), (2,)])
async def test_calls_are_taken_where_streams_were_closed(closed: tuple[int, ...]) -> None:
    async with relay_process(command=("-c", CLOSED.format(closed))) as relay:
        # What the relay opens must not get the numbers that libraries print to.
        assert {os.readlink(f"/proc/{relay.pid}/fd/{number}") for number in closed} == {os.devnull}
        [person] = await attackers(relay, 1)
        code, _ = await stop_timed(relay)
        await asyncio.wait_for(person.wait_closed(), 5)
        assert person.leave is not None and person.leave.reason == models.DisconnectReason.SERVER_SHUTDOWN
        await person.close()
    assert code == 0


async def test_sigterm_tells_everybody_in_a_call_and_ends(relay: RelayProcess) -> None:
    people = await attackers(relay, 3)
    code, seconds = await stop_timed(relay)
    for person in people:
        await asyncio.wait_for(person.wait_closed(), 5)
        assert person.leave is not None, "no goodbye"
        assert person.leave.reason == models.DisconnectReason.SERVER_SHUTDOWN
        await person.close()
    assert (code, seconds < CALL_STOP_S) == (0, True), seconds
    assert "Traceback" not in relay.log_text()


async def test_a_relay_that_is_killed_says_no_goodbye(relay: RelayProcess) -> None:
    """The control of the one above: what the clients are asked for is not there by itself."""
    [person] = await attackers(relay, 1)
    relay.process.kill()
    await asyncio.wait_for(person.wait_closed(), 5)
    assert person.leave is None
    await person.close()
    assert await relay.process.wait() != 0


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(relay: RelayProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=1024)
    text = relay.token("deaf")
    writer.write(
        f"GET /rtc?access_token={text}&protocol=16 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    silent = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(20)]
    code, seconds = await stop_timed(relay)
    assert (code, seconds < CALL_STOP_S) == (0, True), seconds
    for _, other in (*silent, (reader, writer)):
        other.close()


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.4])
async def test_sigterm_in_the_middle_of_handshakes(after_s: float, relay: RelayProcess) -> None:
    joining = [
        asyncio.create_task(Attacker().connect(relay.ws_url, relay.token(f"eve-{i}", canSubscribe=False)))
        for i in range(20)
    ]
    await asyncio.sleep(after_s)
    code, seconds = await stop_timed(relay)
    for task in joining:
        task.cancel()
    for outcome in await asyncio.gather(*joining, return_exceptions=True):
        if isinstance(outcome, Attacker):
            await outcome.close()
    assert (code, seconds < CALL_STOP_S) == (0, True), seconds
    assert "Traceback" not in relay.log_text()


async def test_clients_killed_in_the_middle_of_handshakes_leave_nothing(relay: RelayProcess) -> None:
    before = holding(relay.pid)
    order = {"ws_url": relay.ws_url, "tokens": [relay.token(f"eve-{i}", canSubscribe=False) for i in range(HALFWAY)]}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.adversary.test_process", json.dumps(order),
        cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    async with aiohttp.ClientSession() as session, asyncio.timeout(GIVEN_BACK_S + CONNECT_S):
        # Each has sent its first flight and will not answer ours.
        while (await counters(relay, session))["plane:dtls_received"] < HALFWAY:
            assert child.returncode is None
            await asyncio.sleep(0.05)
        assert await open_transports(relay, session) == HALFWAY
        child.kill()
        await child.wait()
        async with asyncio.timeout(GIVEN_BACK_S):
            while await open_transports(relay, session):
                await asyncio.sleep(0.1)
    await asyncio.sleep(0.2)
    after = holding(relay.pid)
    assert after.descriptors <= before.descriptors + 2, "connections or sockets were forgotten"
    assert "Traceback" not in relay.log_text()


async def test_a_stopped_server_has_closed_every_descriptor_and_thread() -> None:
    # What is made once for all of Python's life, such as the resolver's thread, is made before the count.
    for count in range(3):
        gc.collect()
        before = holding(os.getpid())
        server = Server(settings())
        await server.start()
        address = f"ws://127.0.0.1:{server.http_port}"
        video = {"room": "r", "roomJoin": True, "canPublish": True, "canSubscribe": False}
        person = await Attacker().connect(address, token(sub="eve", video=video))
        during = holding(os.getpid())
        assert during.descriptors > before.descriptors + 3, "the count sees what is open"
        await server.stop()
        await person.close()
        for _ in range(20):
            after = holding(os.getpid())
            if after.descriptors <= before.descriptors and after.threads <= before.threads:
                break
            await asyncio.sleep(0.1)
        if count:
            assert after.descriptors <= before.descriptors
            assert after.threads <= before.threads


async def open_transports(relay: RelayProcess, session: aiohttp.ClientSession) -> int:
    """Return how many transports the relay has."""
    async with session.get(f"{relay.origin}/metrics") as answer:
        found = re.search(r"^veil_transports (\S+)$", await answer.text(), re.M)
    assert found is not None
    return int(float(found[1]))


# --- the log --------------------------------------------------------------------------------------------------------


def leaked(log: str, secrets: dict[str, str]) -> list[str]:
    """Return the names of the secrets whose value, or whose bytes in another spelling, the log shows."""
    found = []
    for name, value in secrets.items():
        spellings = {value, value.upper(), base64.b64encode(value.encode()).decode()}
        if re.fullmatch(r"(?:[0-9a-f]{2}){16,}", value):
            raw = bytes.fromhex(value)
            spellings |= {base64.b64encode(raw).decode().rstrip("="), repr(raw)[2:-1]}
        if any(spelling in log for spelling in spellings):
            found.append(name)
    return found


async def test_a_debug_log_shows_no_token_password_or_key() -> None:
    key = ApiKey("akey", "".join(new_sid("SK") for _ in range(3)))
    environ = {"VEIL_LOG_LEVEL": "debug", "VEIL_KEYS": f"{key.key}:{key.secret}"}
    secrets = {"API secret": key.secret}
    async with relay_process(environ=environ) as relay, aiohttp.ClientSession() as session:
        video = {"room": "r", "roomJoin": True, "canPublish": True, "canPublishData": True, "canSubscribe": False}
        people = []
        for name in ("ana", "bo"):
            text = mint_token(key, name, video, 600, name=name)
            secrets |= {f"token of {name}": text, f"signature of {name}": text.rsplit(".", 1)[1]}
            person = await Attacker().connect(relay.ws_url, text)
            secrets |= {f"{name}'s secret {i}": value for i, value in enumerate(person.secrets)}
            people.append(person)
        assert len(secrets) >= 13
        # Errors are where secrets slip out: tokens that are refused, offers that are not understood.
        wrong = mint_token(ApiKey("akey", key.secret[::-1]), "eve", video, 600)
        secrets["refused token"] = wrong
        joining = (ROOT / "tests" / "vectors" / "join_request" / "chromium_2_23_0.txt").read_text().strip()
        offer = read_join_request(joining).publisher_offer.sdp
        secrets |= {"join_request": joining[100:140], "its password": offer.partition("a=ice-pwd:")[2].partition("\r\n")[0]}
        for path, status in (
            (f"/rtc/validate?access_token={wrong}", 401),
            (f"/rtc/v1?access_token={wrong}&join_request={joining}", 404),
            (f"/rtc/v1/validate?access_token={wrong}&join_request={joining}", 401),
            (f"/rtc/v1/validate?access_token={secrets['token of ana']}&join_request={joining}", 200),
            (f"/rtc/v1/validate?access_token={secrets['token of ana']}&join_request={joining[:-40]}", 400),
            (f"/x?access_token={wrong}", 404),
        ):
            async with session.get(relay.origin + path) as answer:
                assert answer.status == status
        bad = people[0].answer.replace("a=fingerprint:sha-256", "a=fingerprint:md2").replace("a=mid:", "a=mid")
        await people[0].signal(rtc.SignalRequest(offer=rtc.SessionDescription(type="offer", sdp=bad)))
        await people[0].signal(rtc.SignalRequest(answer=rtc.SessionDescription(type="answer", sdp=bad)))
        people[1].path.send(people[1].path.protect(people[1].path.rtp()))
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(
            f"GET /rtc?access_token={wrong} HTTP/1.1\r\nAuthorization: Bearer {wrong}\r\nA\0:\r\n\r\n".encode()
        )
        await asyncio.sleep(0.5)
        writer.close()
        sid = people[0].join.participant.sid
        for person in people:
            await person.close()
        await relay.stop()
        log = relay.log_text()
    assert "offer refused" in log and "[debug" in log, "the level and the errors were there"
    # The control: what is no secret is found by the same search.
    assert leaked(log, {"sid": sid}) == ["sid"]
    assert leaked(f"{log}\n{people[0].secrets[2].upper()}", secrets) == ["ana's secret 2"]
    assert leaked(log, secrets) == []


class _Halfway(Attacker):
    """Sends its first flight of DTLS and is deaf to the answer."""

    def _on_dtls(self, datagram: bytes) -> None:
        pass


async def _join_all(order: dict) -> None:
    await asyncio.gather(*(_Halfway().connect(order["ws_url"], text) for text in order["tokens"]))


if __name__ == "__main__":
    asyncio.run(_join_all(json.loads(sys.argv[1])))

"""People who reach nothing but a TURN server: Chromium, made to use it alone, through Debian's coturn on loopback over TCP."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

import pytest

from tests.support.relay_process import free_port, relay_process
from tests.support.web_guest import guest, until

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(120)]

SECRET = "shared by coturn and the relay"
RELAY_ONLY = """{
  const Connection = window.RTCPeerConnection;
  window.connections = [];
  window.RTCPeerConnection = class extends Connection {
    constructor(options) { super({...options, iceTransportPolicy: "relay"}); connections.push(this); }
  };
}"""
PATHS = """async () => {
  const found = [];
  for (const connection of connections) {
    const report = await connection.getStats();
    report.forEach((s) => {
      if (s.type !== "candidate-pair" || !s.nominated || s.state !== "succeeded") return;
      const local = report.get(s.localCandidateId);
      found.push(`${local.candidateType} ${local.relayProtocol}`);
    });
  }
  return found;
}"""


@contextlib.asynccontextmanager
async def coturn(secret: str) -> AsyncIterator[str]:
    """Run a TURN server; its address for clients."""
    program, port = shutil.which("turnserver"), free_port()
    assert program is not None, "coturn is not installed: scripts/system-packages.sh test"
    process = await asyncio.create_subprocess_exec(
        program, "-n", "--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--listening-port", str(port),
        "--use-auth-secret", "--static-auth-secret", secret, "--realm", "test", "--allow-loopback-peers", "--no-cli",
        "--no-tls", "--no-dtls", "--pidfile", "/dev/null", "--log-file", "stdout",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"turn:127.0.0.1:{port}?transport=tcp"
    finally:
        process.terminate()
        await process.wait()


async def test_a_call_comes_up_over_turn_when_nothing_else_is_reachable() -> None:
    async with coturn(SECRET) as url:
        environ = {"VEIL_TURN_URLS": url, "VEIL_TURN_SECRET": SECRET}
        async with (
            relay_process(environ=environ) as relay,
            guest(relay.origin, "Ada", room="r", script=RELAY_ONLY) as ada,
            guest(relay.origin, "Bo", room="r") as bo,
        ):
            await ada.join()
            await bo.join()
            await ada.sees("Bo")
            await bo.sees("Ada")
            assert set(await ada.chromium.evaluate(PATHS)) == {"relay tcp"}
            assert SECRET not in relay.log_text()


async def test_control_with_another_secret_the_server_lets_nobody_through() -> None:
    async with coturn("another secret than the relay's") as url:
        environ = {"VEIL_TURN_URLS": url, "VEIL_TURN_SECRET": SECRET, "VEIL_LIMITS_JOIN_TIMEOUT_S": "5"}
        async with relay_process(environ=environ) as relay, guest(relay.origin, "Ada", room="r", script=RELAY_ONLY) as ada:
            await ada.page.wait_for_selector("#preview.has-video")
            await ada.page.fill("#join-name", "Ada")
            await ada.page.click("#join-button")

            async def is_named() -> bool:
                return "UDP" in await ada.page.evaluate("document.body.innerText")

            await until(is_named, "the page says that media does not get through", 40)
            assert await ada.chromium.evaluate(PATHS) == []

"""The relay as people run it: `python -m relay serve --dev` in a process of its own, on free ports.

    async with relay_process() as relay:
        token = relay.token("ada", room="r1")
        await client.join(relay.ws_url, token)

What it logged is kept in `relay.log_text()`, printed by `relay_process` when the test fails.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from relay.cli import mint_token
from relay.config import DEV_KEY, DEV_SECRET, ApiKey

ROOT = Path(__file__).resolve().parents[2]
START_S = 20.0
STOP_S = 10.0
# Above what browsers refuse to open (10080 and lower).
FIRST_PORT = 20_000


def free_port() -> int:
    """Return a port that is free now for TCP, and with the next one (a second worker's) for UDP.   Errors: RuntimeError.

    It is none of those the kernel hands out by itself: such a one may be another program's before a relay has started.
    """
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for _ in range(100):
        port = secrets.choice(range(FIRST_PORT, max(end, FIRST_PORT + 1000) - 1))
        with contextlib.suppress(OSError), socket.socket() as tcp, contextlib.ExitStack() as sockets:
            tcp.bind(("", port))
            for following in (port, port + 1):
                sockets.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind(("", following))
            return port
    raise RuntimeError("no port is free")


class RelayProcess:
    """One running relay with the development key."""

    def __init__(self, spawn: Callable[[], Awaitable[asyncio.subprocess.Process]], port: int, log: Path) -> None:
        self._spawn = spawn
        self.port = port
        self._log = log

    async def start(self) -> None:
        self.process = await self._spawn()

    async def restart(self, *, crash: bool = False) -> None:
        """End it, or have it crash, and start it on the same ports at once; return when it takes calls."""
        if crash:
            self.process.kill()
            await self.process.wait()
        else:
            await self.stop()
        await self.start()
        await self.wait_ready()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def token(
        self,
        identity: str,
        *,
        room: str = "room",
        ttl_s: int = 3600,
        attributes: dict[str, str] | None = None,
        **grants: Any,
    ) -> str:
        """Return a token that opens the room; grants go over full permissions, such as canPublish=False."""
        video = {
            "room": room,
            "roomJoin": True,
            "canPublish": True,
            "canSubscribe": True,
            "canPublishData": True,
        } | grants
        return mint_token(ApiKey(DEV_KEY, DEV_SECRET), identity, video, ttl_s, name=identity, attributes=attributes)

    @property
    def log_path(self) -> Path:
        return self._log

    def log_text(self) -> str:
        """Return what the relay wrote to standard error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def maps(self) -> str:
        """Return the list of files mapped into the process (rule 6 of DESIGN §3)."""
        return Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8")

    async def stop(self) -> int:
        """Ask it to end and return its exit code.   Errors: TimeoutError when it does not end."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), STOP_S)

    async def wait_ready(self) -> None:
        """Return once it takes calls.   Errors: RuntimeError with its last words when it ends before."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            for _ in range(int(START_S / 0.05)):
                if self.process.returncode is not None:
                    raise RuntimeError(f"the relay ended with {self.process.returncode}:\n{self.log_text()[-4000:]}")
                # A port that is held open takes connections before anybody answers.
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.origin}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)
        raise RuntimeError(f"the relay was not ready in {START_S} s:\n{self.log_text()[-4000:]}")


@contextlib.asynccontextmanager
async def relay_process(
    *,
    environ: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = ("--dev",),
    core: str = "ext",
    command: tuple[str, ...] = (),
    output: int | None = None,
    holds_socket: bool = False,
    inside: Sequence[str] = (),
) -> AsyncIterator[RelayProcess]:
    """Start a relay and end it. `core` names the build of the data plane: ext, build/debug or build/asan; `command` is what
    Python is to run in place of the relay's own `-m relay serve`, for controls; `output` is a descriptor to write to in place
    of the log that is kept. `holds_socket`: the port is open all the time, as a service manager keeps it over restarts; with it,
    `inside` is what runs the relay elsewhere, such as another network namespace."""
    port, udp_port = free_port(), free_port()
    # Both are TCP; every few thousandth time they were the same.
    tcp_port = next(other for other in iter(free_port, None) if other != port)
    with tempfile.NamedTemporaryFile(prefix="veil-relay-", suffix=".log", delete=False) as log:
        path = Path(log.name)

    listener = socket.create_server(("127.0.0.1", port), backlog=64) if holds_socket else None
    hand_over, handed = (), ()
    if listener is not None:
        # LISTEN_PID is known by the process alone.
        handed = (listener.fileno(),)
        hand_over = (*inside, "bash", "-c", f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&{listener.fileno()}', "bash")

    async def spawn() -> asyncio.subprocess.Process:
        with path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *hand_over, sys.executable, *(command or ("-m", "relay", "serve", *arguments)),
                cwd=ROOT,
                stdout=log if output is None else output,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=handed,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / core}",
                    "VEIL_SERVER_HTTP_PORT": str(port),
                    "VEIL_MEDIA_UDP_PORT": str(udp_port),
                    "VEIL_MEDIA_TCP_PORT": str(tcp_port),
                    "VEIL_LOG_LEVEL": "debug",
                    **(environ or {}),
                },
            )  # fmt: skip

    relay = RelayProcess(spawn, port, path)
    await relay.start()
    try:
        await relay.wait_ready()
        yield relay
    except BaseException:
        print(f"--- the relay's last words ({path})\n{relay.log_text()[-6000:]}", file=sys.stderr)
        raise
    finally:
        try:
            await relay.stop()
        except TimeoutError:
            relay.process.kill()
            await relay.process.wait()
        if listener is not None:
            listener.close()
    path.unlink(missing_ok=True)

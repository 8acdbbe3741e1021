"""Headless Chromium and Firefox with fake camera and microphone, behind one small page object.

    async with blank_site() as url, firefox() as page:
        await page.goto(url)
        sdp = await page.evaluate("async (n) => …", 3)

Chromium is driven by Playwright's driver and Debian's binary, Firefox by WebDriver BiDi over its own remote agent, so
that no geckodriver is needed. Every browser has a profile of its own that is deleted with it. `evaluate` takes the
source of a function, awaits what it returns and carries arguments and result as JSON.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import websockets
from aiohttp import web
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FIREFOX = shutil.which("firefox-esr") or "/usr/bin/firefox-esr"

START_S = 60.0
COMMAND_S = 60.0

# 30 fps: the fake camera gives 20 where nothing is said, below what the upper simulcast encodings are meant for.
CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream=fps=30",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
    # Host candidates as addresses: nobody resolves mDNS names in a test's network namespace.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)

FIREFOX_PREFERENCES: Mapping[str, Any] = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "media.autoplay.default": 0,
    # Nothing of the rest may reach for the network or open a page of its own.
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "app.update.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "services.settings.server": "http://127.0.0.1:1/",
}


class ScriptFailed(Exception):
    """The page's function threw; the message is the page's."""


class Page(Protocol):
    """What both browsers offer a test."""

    name: str
    console: list[str]  # what the page logged, newest last

    async def goto(self, url: str) -> None: ...

    async def run_first(self, script: str) -> None:
        """Run a script in every document from now on, before its own."""

    async def evaluate(self, function: str, *arguments: Any) -> Any: ...

    async def screenshot(self, path: Path) -> None: ...


def call_as_json(function: str, arguments: Sequence[Any]) -> str:
    """Return an expression that calls the function and gives its awaited result as JSON text."""
    return f"(async () => JSON.stringify(await ({function})({', '.join(map(json.dumps, arguments))})) ?? 'null')()"


class ChromiumPage:
    """A Playwright page in a persistent context."""

    name = "chromium"

    def __init__(self, page: Any) -> None:
        self.playwright = page
        self.console: list[str] = []
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(f"Uncaught {error}"))

    async def goto(self, url: str) -> None:
        await self.playwright.goto(url)

    async def run_first(self, script: str) -> None:
        await self.playwright.add_init_script(script)

    async def evaluate(self, function: str, *arguments: Any) -> Any:
        try:
            return json.loads(await self.playwright.evaluate(call_as_json(function, arguments)))
        except PlaywrightError as error:
            raise ScriptFailed(error.message) from None

    async def screenshot(self, path: Path) -> None:
        await self.playwright.screenshot(path=path)


class FirefoxPage:
    """One tab of a Firefox driven by WebDriver BiDi."""

    name = "firefox"

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.console: list[str] = []
        self._socket = socket
        self._commands = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._context = ""
        self._reader = asyncio.create_task(self._read())

    async def start(self) -> None:
        await self.command("session.new", capabilities={})
        self._context = (await self.command("browsingContext.getTree"))["contexts"][0]["context"]
        await self.command("session.subscribe", events=["log.entryAdded"])

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one BiDi command and return its result.   Errors: ScriptFailed with the browser's words."""
        self._commands += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._commands] = future
        await self._socket.send(json.dumps({"id": self._commands, "method": method, "params": parameters}))
        reply = await asyncio.wait_for(future, COMMAND_S)
        if reply.get("type") == "error":
            raise ScriptFailed(f"{reply['error']}: {reply['message']}")
        return reply["result"]

    async def goto(self, url: str) -> None:
        await self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def run_first(self, script: str) -> None:
        await self.command("script.addPreloadScript", functionDeclaration=f"() => {{\n{script}\n}}")

    async def evaluate(self, function: str, *arguments: Any) -> Any:
        reply = await self.command(
            "script.evaluate",
            expression=call_as_json(function, arguments),
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if reply["type"] == "exception":
            raise ScriptFailed(reply["exceptionDetails"]["text"])
        return json.loads(reply["result"]["value"])

    async def screenshot(self, path: Path) -> None:
        shot = await self.command("browsingContext.captureScreenshot", context=self._context)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.command("browser.close")
        self._reader.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                if message.get("method") == "log.entryAdded":
                    self.console.append(str(message["params"].get("text")))
                future = self._waiting.pop(message.get("id"), None)
                if future is not None and not future.done():
                    future.set_result(message)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("Firefox went away"))


@contextlib.asynccontextmanager
async def chromium(*, flags: Sequence[str] = ()) -> AsyncIterator[ChromiumPage]:
    """Start Chromium; `flags` are added to CHROMIUM_FLAGS."""
    profile = tempfile.mkdtemp(prefix="veil-chromium-")
    try:
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                profile,
                executable_path=CHROMIUM,
                # Playwright's own headless switch means the old headless mode; the flag asks for the new one.
                headless=False,
                args=[*CHROMIUM_FLAGS, *flags],
                timeout=START_S * 1000,
            )
            try:
                yield ChromiumPage(context.pages[0] if context.pages else await context.new_page())
            finally:
                await context.close()
    finally:
        shutil.rmtree(profile, ignore_errors=True)


@contextlib.asynccontextmanager
async def firefox(*, preferences: Mapping[str, Any] | None = None) -> AsyncIterator[FirefoxPage]:
    """Start Firefox; `preferences` go over FIREFOX_PREFERENCES."""
    profile = tempfile.mkdtemp(prefix="veil-firefox-")
    process = None
    drain = None
    try:
        wanted = {**FIREFOX_PREFERENCES, **(preferences or {})}
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in wanted.items())
        Path(profile, "user.js").write_text("".join(lines))
        process = await asyncio.create_subprocess_exec(
            FIREFOX, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0", "about:blank",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "MOZ_HEADLESS": "1", "HOME": profile, "MOZ_REMOTE_ALLOW_SYSTEM_ACCESS": "1"},
        )  # fmt: skip
        address = await asyncio.wait_for(_bidi_address(process.stdout), START_S)
        drain = asyncio.create_task(_drain(process.stdout))
        page = FirefoxPage(await websockets.connect(address + "/session", max_size=None, proxy=None))
        await page.start()
        try:
            yield page
        finally:
            await page.close()
    finally:
        if process is not None:
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()
        if drain is not None:
            drain.cancel()
        shutil.rmtree(profile, ignore_errors=True)


async def _bidi_address(output: asyncio.StreamReader) -> str:
    said = []
    while line := (await output.readline()).decode(errors="replace"):
        said.append(line)
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
            return found[1]
    raise RuntimeError("Firefox ended before it listened: " + "".join(said[-5:]))


async def _drain(output: asyncio.StreamReader) -> None:
    while await output.readline():
        pass


@contextlib.asynccontextmanager
async def blank_site() -> AsyncIterator[str]:
    """Serve one empty page on loopback: a secure context, as camera and microphone need."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>blank</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()

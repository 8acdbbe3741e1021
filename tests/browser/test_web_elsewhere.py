"""The built-in client on a web server of its own, exported by `veil web export`: another origin than the relay's.

Its files are the published ones, it calls through the relay that its host named, and a relay lets no page in that its
operator did not name.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli import app
from tests.support.relay_process import free_port, relay_process
from tests.support.web_guest import guest, until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def veil(*arguments: str, **environ: str) -> str:
    """Run a command of `veil` and return what it printed."""
    result = CliRunner().invoke(app, arguments, env=environ)
    assert result.exit_code == 0, result.output
    return result.stdout


@contextlib.contextmanager
def web_server(folder: Path, headers: dict[str, str], *ports: int) -> Iterator[None]:
    """Host a folder as any web server would, with these headers on every answer."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) for port in ports]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


async def test_a_page_hosted_elsewhere_calls_with_one_of_the_relays_own_and_a_third_is_turned_away(tmp_path: Path) -> None:
    ours, strange = free_port(), free_port()
    web_origin = f"http://127.0.0.1:{ours}"
    async with relay_process(environ={"VEIL_SERVER_WEB_ORIGIN": web_origin}) as relay:
        printed = veil("web", "export", str(tmp_path), "--server", relay.origin)
        headers = dict(line.split(": ", 1) for line in printed.splitlines())
        invite = veil("token", "invite", "--dev", "--room", "r", VEIL_SERVER_WEB_ORIGIN=web_origin).strip()
        assert invite.startswith(f"{web_origin}/#invite=")
        fragment = f"{invite.partition('#')[2]}&key={KEY}"
        with web_server(tmp_path, headers, ours, strange):
            assert f"through the relay at {relay.origin}." in veil("web", "verify", web_origin)
            assert "through the relay" not in veil("web", "verify", relay.origin)
            async with (
                guest(web_origin, "Ada", fragment=fragment) as ada,
                guest(relay.origin, "Bo", fragment=f"room=r&key={KEY}") as bo,
            ):
                for person in (ada, bo):
                    await person.join()
                await ada.sees_locked("Bo")
                await bo.sees_locked("Ada")
                await until(ada.hears_something, "Ada hears Bo")
                await until(bo.hears_something, "Bo hears Ada")
                # The link that Ada copies leads others to where she is.
                assert (await ada.page.evaluate("location.href")).startswith(f"{invite}&key=")
                # The same files from an origin that the relay's operator did not name.
                await ada.page.goto(f"http://127.0.0.1:{strange}/#{fragment}")
                await ada.page.wait_for_selector("#join-problem >> text=takes no calls from")
                # A page whose policy would let it, were the relay to answer.
                asked = "async (url) => { await fetch(url); return true; }"
                assert await ada.page.evaluate(asked, f"{relay.origin}/rtc/validate")
                assert not await ada.page.evaluate(f"({asked})({relay.origin!r} + '/client/config').catch(() => false)")

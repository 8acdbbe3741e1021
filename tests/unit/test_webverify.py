"""`veil web verify` tells the shipped client from one that was changed, over real HTTP."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from relay.cli import app
from relay.signaling.web_files import WebFiles, bundle, hashes
from relay.webverify import CannotVerify, verify

Served = dict[str, bytes]


@contextmanager
def site(files: Served) -> Iterator[str]:
    """Serve these files by path on loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shipped() -> Served:
    files = {f"/{name}": body for name, body in bundle().items()}
    listed = json.dumps({"version": "x", "files": hashes()}).encode()
    return {**files, "/": files["/index.html"], "/hashes.json": listed}


def run(files: Served) -> tuple[int, str]:
    with site(files) as url:
        result = CliRunner().invoke(app, ["web", "verify", url])
    return result.exit_code, result.output


def test_the_shipped_client_is_recognised():
    code, text = run(shipped())
    assert code == 0 and "are those of veil" in text


@pytest.mark.parametrize("name", ["/js/e2ee/worker.js", "/index.html", "/", "/style.css"])
def test_one_changed_byte_is_named(name):
    files = shipped()
    files[name] = files[name][:-1] + b" "
    code, text = run(files)
    assert code == 1 and f"differs: {name.removeprefix('/') or '/'}\n" in text


def test_a_missing_file_and_one_too_many_are_named():
    files = shipped()
    del files["/js/room.js"]
    files["/hashes.json"] = json.dumps({"files": {**hashes(), "js/spy.js": "00"}}).encode()
    code, text = run(files)
    assert code == 1 and "missing: js/room.js" in text and "not part of it: js/spy.js" in text


def test_a_list_that_is_none_does_not_pass():
    assert run({**shipped(), "/hashes.json": b"[1"})[0] == 1


def test_a_server_that_lies_in_its_list_alone_is_not_believed():
    """The list is for people to read; what counts are the bytes."""
    files = shipped()
    files["/js/main.js"] += b"//"
    with site(files) as url:
        assert verify(url, hashes()).differing == ("js/main.js",)


@pytest.mark.parametrize("url", ["calls.example.com", "file:///etc/passwd", "http://", "http://127.0.0.1:1/"])
def test_an_address_that_cannot_be_asked_proves_nothing(url):
    with pytest.raises(CannotVerify):
        verify(url, hashes())


def test_the_relay_publishes_the_list_of_what_it_serves():
    files = WebFiles()
    listed = json.loads(files._files["/hashes.json"].body)
    assert listed["files"] == hashes() and "js/e2ee/worker.js" in listed["files"]
    assert {f"/{name}" for name in listed["files"]} | {"/hashes.json"} == set(files._files)

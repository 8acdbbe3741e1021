"""`veil web verify` tells the shipped client from one that was changed, over real HTTP, wherever it is hosted."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli import app
from relay.errors import ConfigError
from relay.signaling.web_files import WebFiles, bundle, hashes
from relay.webexport import export
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
    assert {f"/{name}" for name in listed["files"]} | {"/hashes.json", "/relay.json"} == set(files._files)


SERVER = "https://calls.example.com"


def exported(folder: Path, server: str = SERVER) -> tuple[Served, str]:
    """Export with the command; return the folder's files by path, and what was printed."""
    result = CliRunner().invoke(app, ["web", "export", str(folder), "--server", server])
    assert result.exit_code == 0, result.output
    files = {f"/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**files, "/": files["/index.html"]}, result.stdout


def test_an_exported_client_is_the_shipped_one_and_names_its_relay(tmp_path: Path):
    files, _ = exported(tmp_path / "site", f"{SERVER}/")
    code, text = run(files)
    assert code == 0 and f"are those of veil 0.1.0.\nCalls made there go through the relay at {SERVER}.\n" in text
    files["/js/relay.js"] += b" "
    code, text = run(files)
    assert code == 1 and "differs: js/relay.js\n" in text


def test_a_host_that_names_no_relay_is_told_from_a_relay(tmp_path: Path):
    files, _ = exported(tmp_path)
    assert "relay at" not in run({**files, "/relay.json": WebFiles()._files["/relay.json"].body})[1]
    for broken in (b"", b"[]", b"{}", b'{"server": 3}', b'{"server": "calls.example.com"}', b"<!doctype html>"):
        assert "No calls can be made there" in run({**files, "/relay.json": broken})[1]


def test_the_export_says_what_its_web_server_has_to_send(tmp_path: Path):
    files, printed = exported(tmp_path)
    headers = dict(line.split(": ", 1) for line in printed.splitlines())
    policy = headers["Content-Security-Policy"]
    assert f"connect-src 'self' {SERVER} wss://calls.example.com;" in policy and "script-src 'self';" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert json.loads(files["/relay.json"]) == {"server": SERVER}
    assert "relay.json" not in json.loads(files["/hashes.json"])["files"]


@pytest.mark.parametrize("server", ["calls.example.com", "https://", "https://calls.example.com/path", "ws://a", "https://a@b"])
def test_an_export_for_what_is_no_relay_is_refused(server: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="--server is the relay's address"):
        export(tmp_path / "site", server)
    assert not (tmp_path / "site").exists()


def test_an_export_never_mixes_with_what_is_there(tmp_path: Path):
    (tmp_path / "old.js").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export(tmp_path, SERVER)
    assert [path.name for path in tmp_path.iterdir()] == ["old.js"]

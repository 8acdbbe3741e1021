"""Compares the web client that an address serves with the one of this installation, file by file.

What it shows: the bytes that this machine was given, now. A server may give others something else, so people who depend on it
compare from several places, or host the files themselves.
"""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from relay.errors import VeilError
from relay.origin import read_origin

TIMEOUT_S = 10.0
# Several times the largest file; a hostile server may send without end.
MAX_FILE_BYTES = 8 * 1024 * 1024
HASHES = "hashes.json"
# Says where a page that another server hosts finds its relay. Its host writes it, so it is on no list.
RELAY = "relay.json"


class CannotVerify(VeilError):
    """The address could not be asked, so nothing is known."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Names of files, sorted. `extra`: served by their own list, and not part of this version.

    `relay`: the origin that the page there makes its calls through; empty when it is its own, None when nobody can tell.
    """

    same: tuple[str, ...]
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    relay: str | None

    @property
    def is_same(self) -> bool:
        return bool(self.same) and not (self.differing or self.missing or self.extra)


def verify(url: str, expected: Mapping[str, str], fetch: Callable[[str], bytes | None] | None = None) -> Verdict:
    """Return how what `url` serves differs from `expected` (SHA-256 in hex by file name).

    `fetch` returns a body, None for 404.   Errors: CannotVerify for a bad address and one that does not answer.
    """
    fetch = fetch or _fetch
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CannotVerify(f"an address such as https://calls.example.com is wanted, not {url!r}.")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
    groups: dict[str, list[str]] = {"same": [], "differing": [], "missing": []}
    # People open the address itself, so what it answers is part of it.
    for name, digest in [("", expected["index.html"]), *expected.items()]:
        body = fetch(urljoin(base, name))
        group = "missing" if body is None else "same" if hashlib.sha256(body).hexdigest() == digest else "differing"
        groups[group].append(name or "/")
    extra = _listed(fetch(urljoin(base, HASHES))) - set(expected)
    same, differing, missing = (tuple(sorted(groups[name])) for name in ("same", "differing", "missing"))
    return Verdict(same, differing, missing, tuple(sorted(extra)), _relay(fetch(urljoin(base, RELAY))))


def _listed(body: bytes | None) -> set[str]:
    try:
        return set(json.loads(body or b"{}").get("files", {}))
    except (ValueError, AttributeError, TypeError):
        return {HASHES}


def _relay(body: bytes | None) -> str | None:
    """Return what the page makes of this relay.json, as relay/web/js/relay.js does."""
    if body is None:
        return ""
    try:
        server = json.loads(body)["server"]
        return read_origin(server) if server else ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _fetch(url: str) -> bytes | None:
    request = urllib.request.Request(url, headers={"Cache-Control": "no-cache", "User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            body = answer.read(MAX_FILE_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise CannotVerify(f"{url} answers {error.code}.") from None
    except (OSError, ValueError) as error:
        raise CannotVerify(f"{url} cannot be asked: {getattr(error, 'reason', error)}.") from None
    if len(body) > MAX_FILE_BYTES:
        raise CannotVerify(f"{url} sends more than any file of the client has.")
    return bytes(body)

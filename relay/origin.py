"""Origins as browsers write them in `Origin`: scheme, host, and the port where it is not the scheme's own (RFC 6454)."""

import ipaddress
import re
from urllib.parse import urlsplit

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_PORTS = {"http": 80, "https": 443}


def read_origin(text: str) -> str:
    """Return this origin in the one form that browsers send.   Errors: ValueError for anything that is no HTTP origin."""
    parts = urlsplit(text)
    scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    is_whole = text.lower() == f"{scheme}://{parts.netloc.lower()}" and not parts.netloc.endswith(":")
    if scheme not in _PORTS or not is_whole or port == 0:
        raise ValueError(f"{text!r} is not scheme://host or scheme://host:port")
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host).compressed}]"
    elif "@" in parts.netloc or not _NAME.fullmatch(host):
        raise ValueError(f"{text!r} names no host")
    return f"{scheme}://{host}" if port in (None, _PORTS[scheme]) else f"{scheme}://{host}:{port}"

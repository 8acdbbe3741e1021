"""Writes the web client as a folder that any web server can host, on another origin than the relay's.

People who do not want to trust a relay with the page that holds their keys host that page themselves. What is written is what
a relay serves, byte for byte, so that the published hashes hold; only `relay.json` is the host's own.
"""

from pathlib import Path

from relay.errors import ConfigError
from relay.origin import read_origin


def export(folder: Path, server: str) -> dict[str, str]:
    """Write the client for a relay at `server` into a new folder; return the headers to send with its files.

    Errors: ConfigError for a folder that is in use or cannot be written, and for what is no address of a relay.
    """
    # Only here: other commands do without the HTTP library.
    from relay.signaling.web_files import headers, published

    try:
        origin = read_origin(server.rstrip("/"))
    except ValueError:
        raise ConfigError(f"--server is the relay's address, such as https://calls.example.com, not {server!r}.") from None
    try:
        # Files of another version in between would be served, and be on no list.
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: export into a new folder, then put it in the old one's place.")
        for name, body in published(origin).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}.") from None
    socket = origin.replace("http", "ws", 1)
    return headers(f"'self' {origin} {socket}")

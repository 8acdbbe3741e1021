"""Session descriptions for tests of signalling: browsers' recorded offers, and answers to ours."""

from pathlib import Path

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "sdp"
FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)


def recorded(name: str) -> str:
    """Return a browser's offer."""
    return (VECTORS / f"{name}.sdp").read_bytes().decode()


def track_ids(offer: str) -> dict[str, str]:
    """Return the client's track id of each kind, as its msid lines name it."""
    sections = offer.split("\r\nm=")[1:]
    return {
        s.split(" ", 1)[0]: s.split("\r\na=msid:")[1].split("\r\n")[0].split(" ")[1] for s in sections if "a=msid:" in s
    }


CHROMIUM = track_ids(recorded("chromium_sendrecv"))


def without_sending(offer: str) -> str:
    """Return the offer of a client that has stopped every track."""
    return offer.replace("a=sendrecv", "a=inactive").replace("a=sendonly", "a=inactive")


def answer_to(offer: str) -> str:
    """Return a client's answer that takes everything we offer."""
    lines = []
    for line in offer.split("\r\n"):
        name = line.split(":", 1)[0]
        if name in ("a=ssrc", "a=ssrc-group", "a=msid", "a=candidate", "a=end-of-candidates") or line == "a=ice-lite":
            continue
        replaced = {
            "a=setup": "a=setup:active",
            "a=sendonly": "a=recvonly",
            "a=ice-ufrag": "a=ice-ufrag:abcd",
            "a=ice-pwd": "a=ice-pwd:abcdefghijklmnopqrstuvwx",
            "a=fingerprint": f"a=fingerprint:{FINGERPRINT}",
        }
        lines.append(replaced.get(name, line))
    return "\r\n".join(lines)

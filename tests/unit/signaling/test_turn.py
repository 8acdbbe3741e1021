"""What clients are told of a TURN server."""

import base64
import hashlib
import hmac

from relay.config import Turn
from relay.signaling.turn import ice_servers

URLS = ("stun:stun.example.com:3478", "turn:turn.example.com:3478?transport=udp", "turns:turn.example.com:443?transport=tcp")
SECRET = "a secret that coturn knows"


def test_without_a_server_nothing_is_told() -> None:
    assert ice_servers(Turn(), "PA_1", 1000) == []


def test_the_name_says_until_when_and_the_password_proves_it() -> None:
    stun, turn = ice_servers(Turn(URLS, SECRET, 3600), "PA_1", 1_700_000_000)
    assert (stun.urls, stun.username, stun.credential) == (URLS[:1], "", "")
    assert turn.urls == URLS[1:] and turn.username == "1700003600:PA_1"
    expected = hmac.new(SECRET.encode(), b"1700003600:PA_1", hashlib.sha1).digest()
    assert base64.b64decode(turn.credential) == expected and turn.credential not in repr(turn)

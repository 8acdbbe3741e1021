"""Logs hide secrets by name and by shape, in every format and from every source."""

import errno
import io
import json
import logging
from collections.abc import Iterator

import jwt
import pytest

from relay import log

TOKEN = jwt.encode({"iss": "devkey", "sub": "ada"}, "k" * 32, algorithm="HS256")
PASSWORD = "Zr7pQ0m1sT4uVwXyZ2a3b4c5"
UFRAG = "uF9x"
KEY = bytes(range(16))
PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n"
SDP = f"v=0\r\na=ice-ufrag:{UFRAG}\r\na=ice-pwd:{PASSWORD}\r\na=mid:0\r\n"
SECRETS = (TOKEN, TOKEN.split(".")[1], PASSWORD, UFRAG, KEY.hex(), repr(KEY)[2:-1], "MIGHAgEAMBMGByqGSM49AgEG")


@pytest.fixture(params=["console", "json"])
def stream(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    out = io.StringIO()
    before = logging.getLogger().level
    log.configure("debug", request.param, out)
    yield out
    log.configure("warning", "console")
    root = logging.getLogger()
    root.setLevel(before)
    for handler in [h for h in root.handlers if getattr(h, "veil_handler", False)]:
        root.removeHandler(handler)


def leak_everything() -> None:
    """Write every secret in every way that a careless line of ours or of a library might."""
    logger = log.get_logger("relay.test")
    logger.debug("join", access_token=TOKEN, token=TOKEN, url=f"/rtc?access_token={TOKEN}&sdk=js")
    logger.debug("offer", sdp=SDP, candidate=f"candidate:1 1 UDP 1 192.0.2.1 1 typ host ufrag {UFRAG}")
    logger.debug("transport", ufrag=UFRAG, password=PASSWORD, usernameFragment=UFRAG, icePwd=PASSWORD)
    logger.debug("nested", data={"auth": {"pwd": PASSWORD}, "list": [SDP, {"iceUfrag": UFRAG, "token": TOKEN}]})
    logger.debug("keys", receive_key=KEY, send_salt=KEY.hex(), keys={"master_key": KEY.hex()}, raw=KEY, tls_key=PEM)
    logger.debug("text", note=f"password={PASSWORD} ufrag: {UFRAG} pem {PEM}")
    logger.info(f"Authorization: Bearer {TOKEN}", request=f'{{"password": "{PASSWORD}", "token":"{TOKEN}"}}')
    logging.getLogger("aiohttp.server").error("bad request %s", f"GET /rtc?token={TOKEN} HTTP/1.1")
    logging.getLogger("lib").warning("ice-pwd=%s", PASSWORD, extra={"authorization": TOKEN})
    try:
        raise ValueError(f"cannot use {TOKEN} with {SDP!r}")
    except ValueError:
        logger.exception("oops")
        logging.getLogger("lib").exception("oops too")


def test_no_secret_reaches_the_log(stream: io.StringIO) -> None:
    leak_everything()
    text = stream.getvalue()
    assert text.count("oops") >= 2 and "ValueError" in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_the_check_above_can_fail() -> None:
    """The same lines through plain logging do leak, so the test looks at the right thing."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    plain = logging.getLogger("plain")
    plain.addHandler(handler)
    plain.propagate = False
    plain.warning("join %s %s", TOKEN, SDP)
    plain.removeHandler(handler)
    assert [secret for secret in SECRETS if secret in out.getvalue()]


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        TOKEN.split(".")[0],
        f"typ host UFRAG {UFRAG}",
        f"Bearer {PASSWORD}",
        PEM.strip(),
        f"ice-pwd:{PASSWORD}",
        f"secret={PASSWORD}",
        "inline:" + PASSWORD,
    ],
)
def test_each_shape_is_hidden_where_it_stands_alone(text: str) -> None:
    assert log.HIDDEN in log.redact_text(text) and text not in log.redact_text(text)


def test_what_helps_an_operator_stays(stream: io.StringIO) -> None:
    log.get_logger("relay.rooms").info(
        "participant joined", room="r1", identity="ada", remote="192.0.2.1:5000", key="devkey", transports=2
    )
    text = stream.getvalue()
    for word in ("participant joined", "r1", "ada", "192.0.2.1:5000", "devkey", "relay.rooms"):
        assert word in text


def test_json_lines_parse() -> None:
    out = io.StringIO()
    log.configure("info", "json", out)
    log.get_logger("a").info("one", n=1, data=KEY)
    log.get_logger("a").debug("not shown")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(x["event"], x["n"], x["data"], x["level"]) for x in lines] == [("one", 1, "<16 bytes>", "info")]
    log.configure("warning", "console")


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_cannot_be_written_is_counted_and_bugs_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    before = log.lost_records()
    log.configure("info", "json", Full())
    for _ in range(3):
        log.get_logger("a").info("one")
    assert log.lost_records() - before == 3 and capsys.readouterr().err == ""
    log.configure("info", "json", io.StringIO())
    [handler] = [each for each in logging.getLogger().handlers if getattr(each, "veil_handler", False)]
    handler.handle(logging.LogRecord("a", logging.INFO, "", 0, "%d", ("no number",), None))
    assert log.lost_records() - before == 3
    assert "Logging error" in capsys.readouterr().err
    log.configure("warning", "console")


@pytest.mark.parametrize(
    "name", ["password", "icePwd", "access_token", "X-Auth-Token", "api_secret", "receive_key", "usernameFragment"]
)
def test_secret_names_are_known(name: str) -> None:
    assert log.redact({name: "x"}) == {name: log.HIDDEN}


@pytest.mark.parametrize(
    "name", ["key", "keyframe", "room", "passive", "tokens_per_second_count", "identity", "monkey"]
)
def test_ordinary_names_are_not_hidden(name: str) -> None:
    assert not log.is_secret_name(name)

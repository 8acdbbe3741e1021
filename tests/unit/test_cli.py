"""The command line: what it prints, and the sentence and exit code when it cannot."""

import subprocess
import sys
import tomllib
from pathlib import Path

import jwt
import pytest

from relay.cli import main
from relay.config import DEV_KEY, DEV_SECRET, load

ROOT = Path(__file__).resolve().parents[2]


def veil(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'ext'}", "COLUMNS": "100", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_token_as_livekit_sdks_take_it() -> None:
    done = veil(
        "token", "create", "--dev", "--room", "r1", "--identity", "ada", "--name", "Ada", "--ttl", "90s",
        "--no-can-publish", "--attribute", "veil.min_tier=paid",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    claims = jwt.decode(done.stdout.strip(), DEV_SECRET, algorithms=["HS256"])
    assert (claims["iss"], claims["sub"], claims["name"]) == (DEV_KEY, "ada", "Ada")
    assert claims["exp"] - claims["nbf"] == 90
    assert claims["video"] == {
        "room": "r1",
        "roomJoin": True,
        "canPublish": False,
        "canSubscribe": True,
        "canPublishData": True,
    }
    assert claims["attributes"] == {"veil.min_tier": "paid"}


def test_a_new_key_is_ready_for_the_settings_file(tmp_path: Path) -> None:
    done = veil("keys", "new", "--customer", "acme")
    pair = tomllib.loads(done.stdout)["keys"][0]
    file = tmp_path / "veil.toml"
    file.write_text(done.stdout)
    assert load(file, {}).keys[0].customer == pair["customer"] == "acme"
    assert veil("keys", "new").stdout != done.stdout


def test_check_says_what_the_settings_amount_to() -> None:
    done = veil("serve", "--dev", "--check", VEIL_SERVER_HTTP_PORT="8080")
    assert done.returncode == 0, done.stderr
    assert "http://localhost:8080" in done.stdout and "127.0.0.1 port 8080" in done.stdout
    assert DEV_SECRET not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["serve", "--check"], {}, "there is no key to sign tokens with"),
        (["serve", "--dev", "--check"], {"VEIL_SERVER_BIND_IP": "0.0.0.0"}, "development key"),
        (["serve", "--dev", "--check", "--port", "99999"], {}, "--port: server.http_port cannot be 99999"),
        (["serve", "--config", "/nowhere.toml"], {}, "/nowhere.toml: the file cannot be read"),
        (["token", "create", "--room", "r", "--identity", "i"], {}, "no key to sign with"),
        (["token", "create", "--dev", "--room", "r", "--identity", "i", "--ttl", "soon"], {}, "--ttl is a number"),
        (["token", "create", "--dev", "--room", " ", "--identity", "i"], {}, "--room cannot be empty"),
        (["token", "create", "--dev", "--room", "r", "--identity", "i", "--key", "x"], {}, "there are devkey"),
        (["token", "create", "--dev", "--room", "r", "--identity", "i", "--attribute", "x"], {}, "key=value"),
    ],
)
def test_errors_are_sentences(arguments: list[str], environ: dict[str, str], said: str) -> None:
    done = veil(*arguments, **environ)
    assert done.returncode == 2
    assert done.stderr.startswith("veil: ") and said in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_has_the_same_exit_code() -> None:
    assert veil("token", "create", "--room", "r").returncode == 2
    assert veil("frobnicate").returncode == 2


def test_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert veil("version").stdout == f"veil {project['version']}\n"


def test_an_error_keeps_its_colons(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VEIL_KEYS", "only-a-key")
    monkeypatch.setattr("sys.argv", ["veil", "serve", "--check"])
    with pytest.raises(SystemExit):
        main()
    assert "key:secret:customer" in capsys.readouterr().err

"""Settings: what is read, what wins, and how a wrong one is refused."""

import contextlib
import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from relay.config import DEV_KEY, DEV_SECRET, Config, load
from relay.errors import ConfigError
from relay.toml_lines import find_lines
from tests.support.tiers import CLINIC, CLUB, SHOP, settings

SECRET, OTHER_SECRET = "s" * 32, "t" * 32
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def written(tmp_path: Path):
    """Return a function that loads the given TOML text."""

    def read(text: str, environ: dict[str, str] | None = None, **options) -> Config:
        file = tmp_path / "veil.toml"
        file.write_text(text)
        return load(file, environ or {}, **options)

    return read


def test_the_example_parses_and_equals_the_defaults() -> None:
    assert load(ROOT / "veil.example.toml", {}) == load(None, {}) == Config()


def test_later_sources_win(written) -> None:
    text = "[server]\nhttp_port = 1\n[media]\nudp_port = 2\n[log]\nlevel = 'debug'\n"
    config = written(
        text,
        {"VEIL_MEDIA_UDP_PORT": "3", "VEIL_LOG_LEVEL": "warning"},
        overrides={"log.level": ("error", "--log-level")},
    )
    assert (config.server.http_port, config.media.udp_port, config.log.level) == (1, 3, "error")


def test_the_environment_says_lists_maps_keys_and_truths() -> None:
    config = load(
        None,
        {
            "VEIL_MEDIA_INTERFACES": "eth0, eth1",
            "VEIL_MEDIA_ADVERTISE_IPS": "10.0.0.5=203.0.113.9,10.0.0.6=203.0.113.10",
            "VEIL_MEDIA_IPV6": "false",
            "VEIL_KEYS": f"one:{SECRET}, two:{OTHER_SECRET}:acme",
            # Not ours to judge: these steer the build.
            "VEIL_MODULES": "srtp",
        },
    )
    assert config.media.interfaces == ("eth0", "eth1")
    assert dict(config.media.advertise_ips) == {"10.0.0.5": "203.0.113.9", "10.0.0.6": "203.0.113.10"}
    assert config.media.ipv6 is False
    assert [(k.key, k.customer) for k in config.keys] == [("one", "default"), ("two", "acme")]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[server]\n# a comment\nhttp_prt = 1\n", 3, "did you mean http_port?"),
        ("\n[sever]\n", 2, "did you mean server?"),
        ("[server]\nzzz = 1\n", 2, "known here: bind_ip, http_port,"),
        ("[server]\nhttp_port = 70000\n", 2, "a whole number from 0 to 65535"),
        ("[server]\nhttp_port = true\n", 2, "a whole number from 0 to 65535"),
        ("server = 1\n", 1, "server is a table"),
        ("[log]\n\nlevel = 'loud'\n", 3, '"debug", "info", "warning", "error"'),
        ("[media]\ninterfaces = [\n  'eth0',\n  1,\n]\n", 2, "a list of texts"),
        ("[media]\ninterfaces = [\n  'eth0',\n]\nudp_port = -1\n", 5, "media.udp_port"),
        ("[media]\nbind_ips = ['0.0.0.0']\n", 2, "clients are told these addresses"),
        ("[media]\nbind_ips = ['nowhere']\n", 2, "is an IP address"),
        ("[media]\nbind_ips = ['192.0.2.1']\ninterfaces = ['eth0']\n", 3, "use one of them"),
        ("[media]\nadvertise_ip = 'example.org'\n", 2, "is an IP address"),
        ("[media.advertise_ips]\n'10.0.0.5' = '2001:db8::1'\n", 2, "of one family"),
        ("media.advertise_ips.'10.0.0.5' = 'x'\n", 1, "of one family"),
        (f"[[keys]]\nkey = 'a'\nsecret = '{SECRET}'\n[[keys]]\nkey = 'b'\nsecret = 'short'\n", 6, "keys #2.secret"),
        (f"[[keys]]\nkey = 'a'\nsecret = '{SECRET}'\n\n[[keys]]\nkey = 'b'\n", 5, "lacks secret"),
        (f"[[keys]]\nkey = 'a'\nsecret = '{SECRET}'\n[[keys]]\nkey = 'a'\nsecret = '{SECRET}'\n", 5, "is there twice"),
        ("keys = 'a:b'\n", 1, "[[keys]]"),
        ("[[customers]]\nname = 'acme'\ntier = 'gold'\n", 3, "there are free, paid"),
        ("[tiers.gold]\ne2ee = 'maybe'\n", 2, '"refused", "allowed", "required"'),
        ("[server]\nweb_origin = 'calls.example.com/x'\n", 2, "scheme://host"),
        ("[server]\nweb_origin = 'https://calls.example.com/'\n", 2, "nothing after it"),
        ("[server]\n\nweb_origin = 'https://calls.example.com:99999'\n", 3, "scheme://host"),
        ("[server]\nweb_origin = '*'\n", 2, "scheme://host"),
        ("[[webhooks]]\napi_key = 'none'\nurls = ['https://a.example/']\n", 2, "no key has that name"),
        ("[[webhooks]]\nurls = ['https://a.example/']\n", 1, "api_key"),
        ("[[keys]]\nkey = 'k'\nsecret = '" + SECRET + "'\n[[webhooks]]\napi_key = 'k'\n", 4, "nobody to tell"),
        ("[[keys]]\nkey = 'k'\nsecret = '" + SECRET + "'\n[[webhooks]]\napi_key = 'k'\nurls = ['a.example']\n", 6, "http(s)://host"),
        ("[limits]\nping_interval_s = 20\nping_timeout_s = 15\n", 3, "longer than limits.ping_interval_s"),
        ("[server]\ntls_key_file = 'k.pem'\n", 2, "needs server.tls_certificate_file"),
        ("[server]\nhttp_port = = 1\n", 2, "this is not TOML"),
        ("dev = true\n", 1, "dev is not a setting"),
        ("\nserver = 1979-05-27\n", 2, 'server is a table, not "1979-05-27"'),
        ("[media]\nadvertise_ips = 1979-05-27\n", 2, "is a table"),
        ("[tiers]\nfree = 1979-05-27\n", 2, "tiers.free is a table"),
        ("keys = [1979-05-27]\n", 1, "keys #1 is a table"),
        (
            f"[[keys]]\nkey = 'a'\nsecret = '{SECRET}'\n[[keys]]\nkey = 'b'\nsecret = '{SECRET}'\ncustomer = 'acme'\n",
            6,
            "keys #2.secret is another customer's too",
        ),
        (
            f"[[keys]]\nkey = 'a'\nsecret = '{SECRET}'\ncustomer = 'acme'\n[[customers]]\nname = 'Acme'\ntier = 'paid'\n",
            4,
            "differ by more than case",
        ),
        ("[[customers]]\nname = 'acme'\n[[customers]]\nname = 'acme'\n", 4, "is there twice"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_line(written, text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        written(text)
    assert refused.value.line == line
    assert said in str(refused.value)
    assert f"veil.toml, line {line}: " in str(refused.value)


@pytest.mark.parametrize("text", ["a = " + "[" * 9999, "a={" * 3000, f"x = {'9' * 5000}"])
def test_what_is_too_much_for_the_parser_is_refused_too(written, text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        written(text)


def test_a_file_that_is_half_written_is_read_or_refused_and_nothing_else(written) -> None:
    """SIGHUP may come while an editor writes."""
    whole = settings(SHOP, CLUB, CLINIC)
    read = 0
    for end in range(len(whole)):
        with contextlib.suppress(ConfigError):
            written(whole[:end])
            read += 1
    assert 0 < read < len(whole) / 2


@pytest.mark.parametrize("name", ["keys", "customers", "tiers", "server"])
def test_a_word_in_the_place_of_a_table_is_refused_whatever_is_laid_over_it(written, name: str) -> None:
    for options in ({"dev": True}, {"overrides": {"server.http_port": (1, "--port")}}):
        with pytest.raises(ConfigError, match=f"line 1: {name} "):
            written(f"{name} = 5\n", **options)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"VEIL_SERVER_HTP_PORT": "1"},
            "VEIL_SERVER_HTP_PORT: server.htp_port is not a setting; did you mean http_port?",
        ),
        ({"VEIL_SERVER_HTTP_PORT": "many"}, "a whole number from 0 to 65535"),
        ({"VEIL_MEDIA_IPV6": "perhaps"}, "true or false"),
        ({"VEIL_KEYS": "lonely"}, "VEIL_KEYS: wants key:secret"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(None, environ)
    assert said in str(refused.value)


def test_a_refused_secret_is_not_repeated(written) -> None:
    with pytest.raises(ConfigError) as refused:
        load(None, {"VEIL_KEYS": "a:hunter2"})
    assert "hunter2" not in str(refused.value)
    texts = "keys = 'a:hunter2'", "keys = ['a:hunter2']", "[keys]\na = 'hunter2'", "[[keys]]\nsecret = ['hunter2']\nkey = 'a'"
    for text in texts:
        with pytest.raises(ConfigError) as refused:
            written(text)
        assert "hunter2" not in str(refused.value)


def test_secrets_are_not_in_the_repr() -> None:
    config = load(None, {"VEIL_KEYS": f"a:{SECRET}", "VEIL_SERVER_METRICS_TOKEN": "observer-7"})
    assert SECRET not in repr(config) and "observer-7" not in repr(config)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml", {})
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"[log]\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="line 2: this is not UTF-8"):
        load(latin, {})


def test_development_listens_on_this_machine_alone() -> None:
    config = load(None, {}, dev=True)
    assert config.dev and config.server.bind_ip == "127.0.0.1"
    assert [k.key for k in config.keys] == [DEV_KEY]
    assert config.origin == "http://localhost:7880"
    assert load(None, {"VEIL_SERVER_BIND_IP": "::1"}, dev=True).server.bind_ip == "::1"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_the_development_key_is_refused_for_others(written, address: str) -> None:
    with pytest.raises(ConfigError, match="development key"):
        written(f"[server]\nbind_ip = '{address}'\n", dev=True)
    # Also where somebody copies its well-known secret, or its name, into their settings.
    with pytest.raises(ConfigError, match="development key"):
        written(f"[server]\nbind_ip = '{address}'\n[[keys]]\nkey = 'mine'\nsecret = '{DEV_SECRET}'\n")
    with pytest.raises(ConfigError, match="development key"):
        written(f"[server]\nbind_ip = '{address}'\n[[keys]]\nkey = '{DEV_KEY}'\nsecret = '{SECRET}'\n")


def test_customers_have_tiers_and_guests_the_free_one(written) -> None:
    config = written("[[customers]]\nname = 'acme'\ntier = 'paid'\n[tiers.gold]\ne2ee = 'allowed'\n")
    assert config.tier_of("acme").e2ee == "required"
    assert config.tier_of("somebody").e2ee == "refused"
    assert sorted(config.tiers) == ["free", "gold", "paid"]


def write_certificate(folder: Path, *, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    seal = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (folder / "c.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "k.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, seal))
    return folder / "c.pem", folder / "k.pem"


def test_certificate_files_are_tried_before_the_relay_starts(written, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    text = f"[server]\ntls_certificate_file = '{certificate}'\ntls_key_file = '{key}'\n"
    assert written(text).origin == "https://localhost:7880"

    other = tmp_path / "other"
    other.mkdir()
    _, wrong_key = write_certificate(other)
    with pytest.raises(ConfigError, match="line 2: .*cannot be used: key values mismatch"):
        written(f"[server]\ntls_certificate_file = '{certificate}'\ntls_key_file = '{wrong_key}'\n")

    _, locked = write_certificate(other, passphrase=b"x")
    with pytest.raises(ConfigError, match="line 3: .*is encrypted"):
        written(f"[server]\ntls_certificate_file = '{other / 'c.pem'}'\ntls_key_file = '{locked}'\n")

    with pytest.raises(ConfigError, match="line 3: .*cannot be read"):
        written(f"[server]\ntls_certificate_file = '{certificate}'\ntls_key_file = '{tmp_path / 'none.pem'}'\n")


def test_lines_are_found_through_strings_arrays_and_dots() -> None:
    text = (
        'a = """\nb = 1\n"""\n'  # 1-3: b is text
        "c.d = [ # [\n  'x]',\n]\n"  # 4-6
        "[e.\"f.g\"]\n'h i' = 1\n"  # 7-8
        "[[t]]\nn = 1\n[t.u]\nm = 1\n[[t]]\nn = 2\n"  # 9-14
    )
    lines = find_lines(text)
    assert lines[("a",)] == 1 and ("b",) not in lines
    assert lines[("c", "d")] == 4
    assert lines[("e", "f.g", "h i")] == 8
    assert lines[("t", 0, "n")] == 10 and lines[("t", 0, "u", "m")] == 12 and lines[("t", 1, "n")] == 14

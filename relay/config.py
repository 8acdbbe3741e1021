"""Settings: what they are, why each default is what it is, and how they are read.

A setting comes from, later ones winning: the default below, a TOML file, the environment
(`VEIL_SERVER_HTTP_PORT=7880`), a flag of the command line. The result is frozen. `veil.example.toml` is rendered
from this file (`python -m relay.config`), so that the explanations exist once.

A wrong setting is refused with its line and with what is allowed, and an unknown one with the name it may have
meant; a relay that guesses is worse than one that does not start.
"""

import dataclasses
import ipaddress
import os
import re
import ssl
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from relay.config_read import (
    MISSING,
    Tree,
    build,
    from_text,
    option,
    parse_toml,
    render,
    section_types,
    table,
    unknown,
)
from relay.config_rooms import Rooms, Webhook, check_webhooks
from relay.config_tiers import DEFAULT_TIERS, Tier, check_tiers, complete_shipped_tiers
from relay.errors import ConfigError
from relay.origin import read_origin

DEV_KEY = "devkey"
# Customer and tier of that key.
DEV_CUSTOMER = "development"
# Known to everybody, so it opens nothing that is not on this machine alone. 32 bytes, as HS256 asks (RFC 7518 §3.2).
DEV_SECRET = "veil-development-secret-not-for-production"

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
Name = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="1 to 64 of the characters A-Z a-z 0-9 _ . -")
]
Secret = Annotated[
    str, Meta(min_length=32, max_length=256, description="32 to 256 characters; `veil keys new` makes one")
]


@dataclass(frozen=True)
class Server:
    """The HTTP and WebSocket edge: signalling, the built-in page, health and metrics."""

    bind_ip: str = option(
        "0.0.0.0",
        "Address for HTTP and WebSocket. All of IPv4, because people call from elsewhere; `::` for both "
        "families. `--dev` uses 127.0.0.1.",
    )
    http_port: Port = option(
        7880,
        "The port LiveKit apps expect, so that they need only a new host name. 0 lets the system choose.",
    )
    tls_certificate_file: str = option(
        "",
        "PEM chain for HTTPS. Browsers give cameras only to HTTPS pages (and to localhost). Empty: plain "
        "HTTP, for use behind a proxy that holds the certificate.",
    )
    tls_key_file: str = option(
        "",
        "PEM private key of that certificate, not encrypted. Needed with, and only with, tls_certificate_file.",
    )
    web_origin: str = option(
        "",
        "The address people open, such as https://calls.example.com; invite links start with it. Another server may host "
        "the web client there (`veil web export`): pages of this origin, and of no other, get invites traded for tokens. "
        "Empty: http(s)://bind_ip:http_port, with localhost where bind_ip names every address.",
    )
    trust_forwarded: bool = option(
        False,
        "Believe X-Forwarded-For about who is calling. Only behind a proxy that sets it: anybody else can "
        "send it too, and would escape the limits per address.",
    )
    metrics_token: str = option(
        "",
        "What a Prometheus elsewhere shows as its bearer token to read /metrics. Empty: only this machine, with "
        "no proxy between, because how many people are in calls is nobody else's business. It also opens /debug, "
        "which without it answers to this machine with --dev alone.",
        show=False,
    )


@dataclass(frozen=True)
class Media:
    """The data plane: where media arrives and which addresses clients are told."""

    udp_port: Port = option(
        7882,
        "The UDP port of all media (the first one, see workers), so that a firewall needs one rule. LiveKit users open "
        "7882 already. 0 lets the system choose.",
    )
    tcp_port: Port = option(
        7881,
        "The TCP port of media for networks that let no UDP through (ICE-TCP), one for all workers. LiveKit users open "
        "7881 already. 0: none.",
    )
    workers: Annotated[int, Meta(ge=0, le=32)] = option(
        1,
        "Threads that carry media, each with a UDP port of its own on every address: udp_port, udp_port + 1 and so on, "
        "all to be opened. One carries some hundred thousand packets a second; more are for machines that shall carry "
        "more than one core can. 0: as many as there are cores.",
    )
    bind_ips: tuple[str, ...] = option(
        (),
        "Local addresses for media, one socket each. Empty: every address of this machine that is up (see "
        "interfaces, ipv6), because a client is told each of them and a wildcard address cannot be told.",
    )
    interfaces: tuple[str, ...] = option(
        (),
        'Take addresses of these network interfaces only, such as ["eth0"]; for machines with container '
        "bridges or a management network. Empty: all but loopback.",
    )
    advertise_ip: str = option(
        "",
        "The public address clients are told instead of a local one of the same family: for 1:1 NAT (cloud "
        "machines) and containers. Empty: they are told the local address.",
    )
    advertise_ips: Mapping[str, str] = option(
        types.MappingProxyType({}),
        "The same for machines with several addresses: local address = public address. An entry here wins "
        "over advertise_ip.",
    )
    ipv6: bool = option(
        True,
        "Use global and unique-local IPv6 addresses too where the machine has them: mobile networks often "
        "reach IPv6 with no NAT between. Link-local ones are never used, browsers cannot reach them.",
    )
    socket_buffer_bytes: Annotated[int, Meta(ge=65_536, le=1 << 28)] = option(
        4_194_304,
        "Kernel buffer of each media socket and direction: about 30 ms at 1 Gbit/s, what a thread may be "
        "late. The kernel grants at most net.core.rmem_max and wmem_max; the start log says what it "
        "granted.",
    )
    overload_lag_ms: Annotated[int, Meta(ge=0, le=1_000)] = option(
        50,
        "How late a worker may be before it leaves out video, upper temporal layers first, all of it at three times "
        "this; audio always goes on. From about 50 ms on a voice is heard to be late. 0: never.",
    )
    srtp_backend: Literal["auto", "ipsec-mb", "openssl"] = option(
        "auto",
        "Cipher library. auto takes ipsec-mb where the processor has AES and vector instructions (4 to 5 "
        "times faster), else OpenSSL.",
    )

    @property
    def worker_count(self) -> int:
        """Return how many workers there are to be."""
        return self.workers or min(32, len(os.sched_getaffinity(0)))

    @property
    def udp_ports(self) -> tuple[int, ...]:
        """Return the UDP ports of the workers; 0 = any."""
        return tuple(self.udp_port + k if self.udp_port else 0 for k in range(self.worker_count))


@dataclass(frozen=True)
class Turn:
    """A TURN server for people whose network lets no UDP through to us; coturn with `use-auth-secret` is one."""

    urls: tuple[str, ...] = option(
        (),
        'What clients are told, such as ["turn:turn.example.com:3478?transport=udp", '
        '"turns:turn.example.com:443?transport=tcp"]; the second passes networks that know only HTTPS. Empty: none.',
    )
    secret: str = option(
        "",
        "coturn's static-auth-secret. Each client gets a name and password of its own made with it, which open nothing "
        "but the TURN server.",
        show=False,
    )
    lifetime_s: Annotated[int, Meta(ge=600, le=604_800)] = option(
        86_400,
        "How long such a password opens new allocations: longer than the longest call, because coturn asks for it again "
        "when an allocation is renewed.",
    )


@dataclass(frozen=True)
class ApiKey:
    """A key pair that signs tokens; rooms made by its tokens belong to its customer."""

    key: Name = option(MISSING, "Public name of the key, the `iss` of its tokens.")
    secret: Secret = option(
        MISSING,
        "What signs the tokens (HS256). Who has it can enter every room of the customer: keep it out of web "
        "pages and repositories.",
        show=False,
    )
    customer: Name = option(
        "default",
        "Whose rooms these are. Two keys of one customer open the same rooms, so that a key can be replaced "
        "without an interruption.",
    )


@dataclass(frozen=True)
class Customer:
    """Somebody who owns rooms; a room name means another room for another customer."""

    name: Name = option(MISSING, "The name that the keys of this customer carry.")
    tier: Name = option(
        "free",
        "One of the tiers below. Free, because a promise nobody made should not be kept by accident.",
    )


@dataclass(frozen=True)
class Limits:
    """Bounds, so that one caller cannot take what belongs to all."""

    participants_per_room: Count = option(
        200,
        "Group keys are made for at most 200 members; larger audiences are broadcasts, which need several machines.",
    )
    publications_per_participant: Count = option(
        20,
        "Camera, microphone, screen and its sound are 4; LiveKit stops at 20 tracks that wait to be published.",
    )
    rooms_per_customer: Count = option(
        10_000,
        "Far above what one machine can carry in calls; it only bounds the memory of empty rooms.",
    )
    signal_message_bytes: Bytes = option(
        2_097_152,
        "Largest message on the signalling WebSocket after decompression, the limit of LiveKit servers.",
    )
    signal_queue_bytes: Bytes = option(
        1_048_576,
        "Bytes that may wait for a slow client before its connection is dropped; a whole room's updates are "
        "some 100 kB.",
    )
    sdp_bytes: Bytes = option(
        262_144,
        "Largest session description. A browser in a call with 100 others writes about 150 kB.",
    )
    data_message_bytes: Bytes = option(
        65_536,
        "Largest data channel message. Browsers accept it without asking; RFC 8841 takes 64 kB where nothing is said.",
    )
    peer_packets_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = option(
        10_000,
        "Packets a participant may send; three simulcast encodings of 1080p with a shared screen are 2,000. What "
        "exceeds it is dropped, audio and data last. 0: no limit.",
    )
    peer_bits_per_s: Annotated[int, Meta(ge=0, le=100_000_000_000)] = option(
        50_000_000,
        "The same in bits; browsers send 10 Mbit/s of simulcast and as much again of a screen in 4K. 0: no limit.",
    )
    connections_per_address: Count = option(
        200,
        "Open WebSockets per client address; an office behind one NAT fits.",
    )
    waiting_connections: Count = option(
        1_000,
        "Connections that have shown no valid token yet; for each further one the oldest of them is closed, so that "
        "noise neither exhausts file descriptors nor shuts the door on others.",
    )
    join_timeout_s: Seconds = option(
        60,
        "A participant whose media has not connected by then is removed; clients give up after 15 s, three times over.",
    )
    ping_interval_s: Seconds = option(
        3,
        "How often clients are asked to show that they live. Native SDKs abort on 0.",
    )
    ping_timeout_s: Seconds = option(
        7,
        "A connection silent for so long is closed by its client, which resumes over another one: what a browser needs that "
        "has changed its network.",
    )
    empty_room_s: Seconds = option(300, "How long a room nobody ever joined is kept, as LiveKit does.")
    departed_room_s: Seconds = option(
        20,
        "How long a room is kept after the last one left, so that a dropped call finds its room again.",
    )


@dataclass(frozen=True)
class Log:
    """What is written down, on standard error. Tokens, ICE passwords and keys never are."""

    level: Literal["debug", "info", "warning", "error"] = option(
        "info",
        "info has a line per join, publication and leave; debug one per message.",
    )
    format: Literal["console", "json"] = option("console", "console reads well; json is for collectors.")


@dataclass(frozen=True)
class Config:
    """Everything `veil serve` needs to know."""

    server: Server = table(Server)
    media: Media = table(Media)
    turn: Turn = table(Turn)
    limits: Limits = table(Limits)
    rooms: Rooms = table(Rooms)
    log: Log = table(Log)
    keys: tuple[ApiKey, ...] = option(
        (),
        "Key pairs that sign tokens. None by default: a relay that anybody can use is never what was meant.",
    )
    webhooks: tuple[Webhook, ...] = option(
        (), "Who is told of rooms and participants, by signed HTTP requests. Changes wait for a restart."
    )
    customers: tuple[Customer, ...] = option(
        (),
        "Customers with a tier other than `free`; a customer that only a key names is free.",
    )
    tiers: Mapping[str, Tier] = option(
        DEFAULT_TIERS,
        "Tiers by name. Free calls are not encrypted end to end, so that server features can work; paid ones "
        "always are. End-to-end encryption for everyone is one changed word. Keys, customers and tiers are read anew "
        "on SIGHUP; rooms that are open keep what they began with.",
    )
    # Not a setting: only `veil serve --dev` and tests say it.
    dev: bool = False
    # Where each setting came from, so that an error found later than here can still name its line.
    tree: Tree = field(default_factory=Tree, repr=False, compare=False)

    def customer(self, name: str) -> Customer:
        """Return the customer of this name; one that no table describes is of the free tier."""
        return next((known for known in self.customers if known.name == name), Customer(name=name))

    def tier_of(self, customer: str) -> Tier:
        """Return the tier that rules this customer's rooms."""
        return self.tiers[self.customer(customer).tier]

    @property
    def origin(self) -> str:
        """The address people open, without a slash at its end."""
        if self.server.web_origin:
            return self.server.web_origin
        scheme = "https" if self.server.tls_certificate_file else "http"
        address = ipaddress.ip_address(self.server.bind_ip)
        host = "localhost" if address.is_unspecified or address.is_loopback else str(address)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.server.http_port}"

    def wrong(self, setting: str, why: str) -> ConfigError:
        """Return the error for a setting such as "media.interfaces", with the place it came from."""
        return self.tree.wrong(tuple(int(part) if part.isdigit() else part for part in setting.split(".")), why)


def load(
    path: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    dev: bool = False,
) -> Config:
    """Return the settings from a file, the environment and flags.

    `overrides` maps a dotted name to its value and to the flag's name: {"server.http_port": (8080, "--port")}.
    Errors: ConfigError, whose text names the place and what is allowed.
    """
    tree = Tree()
    if path is not None:
        tree = parse_toml(_read(Path(path)), str(path))
    _take_environment(tree, os.environ if environ is None else environ)
    for name, (value, flag) in (overrides or {}).items():
        tree.put(tuple(name.split(".")), value, flag)
    if dev:
        _take_development(tree)
    complete_shipped_tiers(tree)
    config = build(Config, tree.values, tree)
    config = dataclasses.replace(
        config, tiers=types.MappingProxyType({**DEFAULT_TIERS, **config.tiers}), dev=dev, tree=tree
    )
    _check(config)
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}.", source=str(path)) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError("this is not UTF-8 text.", source=str(path), line=line) from None


def _take_environment(tree: Tree, environ: Mapping[str, str]) -> None:
    """Lay VEIL_<SECTION>_<SETTING> and VEIL_KEYS over the tree; a name that misses its setting is refused."""
    sections = {
        name: cls for name, cls in section_types(Config).items() if name in ("server", "media", "turn", "limits", "rooms", "log")
    }
    for variable, text in sorted(environ.items()):
        if variable == "VEIL_KEYS":
            tree.put(("keys",), _keys_from_text(text), variable)
            continue
        match = re.fullmatch(r"VEIL_([A-Z0-9]+)_([A-Z0-9_]+)", variable)
        # Other VEIL_ variables steer the build and the tests.
        if not match or match[1].lower() not in sections:
            continue
        section, name = match[1].lower(), match[2].lower()
        hints = section_types(sections[section])
        path = (section, name)
        if name not in hints:
            tree.places[path] = (f"environment variable {variable}", None)
            raise unknown(name, hints, tree, path)
        tree.put(path, from_text(text, hints[name]), f"environment variable {variable}")


def _keys_from_text(text: str) -> list[dict[str, str]]:
    """Return the key tables of VEIL_KEYS: "key:secret" or "key:secret:customer", separated by commas or blanks."""
    keys = []
    for item in re.split(r"[,\s]+", text.strip()):
        parts = item.split(":")
        if len(parts) not in (2, 3):
            raise ConfigError("wants key:secret or key:secret:customer, separated by commas.", source="VEIL_KEYS")
        keys.append(dict(zip(("key", "secret", "customer"), parts, strict=False)))
    return keys


def _take_development(tree: Tree) -> None:
    """Add the development key, whose calls may be of either kind, and listen on this machine alone unless told otherwise."""
    values = tree.values
    kinds = {"keys": list, "customers": list, "tiers": dict, "server": dict}
    if any(not isinstance(values.get(name, kind()), kind) for name, kind in kinds.items()):
        # Refused in a moment, with its line.
        return
    values["keys"] = [*values.get("keys", ()), {"key": DEV_KEY, "secret": DEV_SECRET, "customer": DEV_CUSTOMER}]
    values["customers"] = [*values.get("customers", ()), {"name": DEV_CUSTOMER, "tier": DEV_CUSTOMER}]
    values["tiers"] = {**values.get("tiers", {}), DEV_CUSTOMER: {"e2ee": "allowed"}}
    if "bind_ip" not in tree.values.get("server", {}):
        tree.put(("server", "bind_ip"), "127.0.0.1", "--dev")


def _check(config: Config) -> None:
    """Refuse settings that are each well-formed and together make no sense."""
    bind = _address(config, "server.bind_ip", config.server.bind_ip)
    _check_keys(config, bind)
    _check_tls(config)
    _check_media(config)
    _check_web_origin(config)
    _check_turn(config)
    check_tiers(config.tiers, config.tree)
    if config.limits.ping_timeout_s <= config.limits.ping_interval_s:
        raise config.wrong("limits.ping_timeout_s", "must be longer than limits.ping_interval_s.")
    for position, customer in enumerate(config.customers):
        if customer.tier not in config.tiers:
            choices = ", ".join(config.tiers)
            raise config.wrong(f"customers.{position}.tier", f"names no tier; there are {choices}.")
        if customer.name in [other.name for other in config.customers[:position]]:
            raise config.wrong(f"customers.{position}.name", f"is there twice: {customer.name}.")
    _check_customers(config)
    check_webhooks(config.webhooks, [key.key for key in config.keys], config.tree)


def _check_customers(config: Config) -> None:
    """Refuse names that look alike: a key of `Clinic` would else not be of the tier that `clinic` has."""
    places = [(f"customers.{position}.name", customer.name) for position, customer in enumerate(config.customers)]
    places += [(f"keys.{position}.customer", key.customer) for position, key in enumerate(config.keys)]
    spelt: dict[str, str] = {}
    for place, name in places:
        other = spelt.setdefault(name.lower(), name)
        if other != name:
            raise config.wrong(place, f"is {name}, and another customer is {other}: names must differ by more than case.")


def _check_keys(config: Config, bind: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    seen: set[str] = set()
    for position, key in enumerate(config.keys):
        if key.key in seen:
            raise config.wrong(f"keys.{position}.key", f"is there twice: {key.key}.")
        seen.add(key.key)
        if any(key.secret == other.secret and key.customer != other.customer for other in config.keys[:position]):
            raise config.wrong(
                f"keys.{position}.secret", "is another customer's too, who could sign tokens for this one with it."
            )
        if (key.key == DEV_KEY or key.secret == DEV_SECRET) and not bind.is_loopback:
            raise config.wrong(
                "server.bind_ip",
                f"cannot be {bind} with the development key, which everybody knows: listen on 127.0.0.1, or make a key "
                "with `veil keys new`.",
            )


def _check_web_origin(config: Config) -> None:
    if not config.server.web_origin:
        return
    try:
        read_origin(config.server.web_origin)
    except ValueError:
        why = "is scheme://host or scheme://host:port with nothing after it, such as https://calls.example.com."
        raise config.wrong("server.web_origin", why) from None


def _check_turn(config: Config) -> None:
    """RFC 7064 and RFC 7065 for the addresses; a secret where, and only where, one is needed."""
    for position, url in enumerate(config.turn.urls):
        if not re.fullmatch(r"stuns?:[^?/@\s]+|turns?:[^?/@\s]+(\?transport=(udp|tcp))?", url):
            why = "is turn:host:port or turns:host:port, with ?transport=udp or ?transport=tcp behind it, or stun:host:port."
            raise config.wrong(f"turn.urls.{position}", why)
    needs_secret = any(url.startswith("turn") for url in config.turn.urls)
    if needs_secret and len(config.turn.secret) < 16:
        raise config.wrong("turn.secret", "is missing or shorter than 16 characters: coturn's static-auth-secret.")
    if config.turn.secret and not needs_secret:
        raise config.wrong("turn.urls", "names no TURN server for the secret beside it.")


def _check_tls(config: Config) -> None:
    certificate, key = config.server.tls_certificate_file, config.server.tls_key_file
    if bool(certificate) != bool(key):
        given, lacking = (
            ("tls_certificate_file", "tls_key_file") if certificate else ("tls_key_file", "tls_certificate_file")
        )
        raise config.wrong(f"server.{given}", f"needs server.{lacking} beside it.")
    if not certificate:
        return
    for name, file in (("tls_certificate_file", certificate), ("tls_key_file", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise config.wrong(f"server.{name}", f"cannot be read: {file}: {error.strerror}.") from None

    def refuse_passphrase() -> str:
        raise config.wrong(
            "server.tls_key_file", "is encrypted; the relay starts without a person who could type a passphrase."
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=refuse_passphrase)
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise config.wrong("server.tls_certificate_file", f"and its key cannot be used: {reason}.") from None


def _check_media(config: Config) -> None:
    if config.media.udp_ports[-1] > 65_535:
        count, first = config.media.worker_count, config.media.udp_port
        raise config.wrong("media.workers", f"is {count}, one port each from {first} on; the last port is 65535.")
    for position, text in enumerate(config.media.bind_ips):
        if _address(config, f"media.bind_ips.{position}", text).is_unspecified:
            raise config.wrong(
                "media.bind_ips", f"cannot hold {text}: clients are told these addresses. Leave it empty for all."
            )
    if config.media.bind_ips and config.media.interfaces:
        raise config.wrong("media.interfaces", "and media.bind_ips choose the same thing; use one of them.")
    if config.media.advertise_ip:
        _address(config, "media.advertise_ip", config.media.advertise_ip)
    for local, public in config.media.advertise_ips.items():
        versions = {ipaddress.ip_address(text).version if _is_address(text) else 0 for text in (local, public)}
        if 0 in versions or len(versions) > 1:
            why = f"maps {local} to {public}: both must be addresses, of one family."
            raise config.tree.wrong(("media", "advertise_ips", local), why)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _address(config: Config, setting: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if not _is_address(text):
        raise config.wrong(setting, f"is an IP address such as 192.0.2.1 or 2001:db8::1, not {text!r}.")
    return ipaddress.ip_address(text)


EXAMPLE_HEAD = """\
# Settings of `veil serve --config veil.toml`, each at its default. Delete what you do not change.
# The same settings as environment variables: VEIL_SERVER_HTTP_PORT=8080, VEIL_MEDIA_ADVERTISE_IP=203.0.113.9,
# VEIL_MEDIA_INTERFACES=eth0,eth1, VEIL_MEDIA_ADVERTISE_IPS=10.0.0.5=203.0.113.9, VEIL_KEYS=key:secret:customer.
# They win over this file, and flags of the command line win over both. Written by `make example`.
"""


def example() -> str:
    """Return the text of veil.example.toml."""
    return f"{EXAMPLE_HEAD}\n{render(Config)}"


if __name__ == "__main__":
    sys.stdout.write(example())

"""The `veil` command: serve, token, keys, version.

Every error a person can act on is one sentence on standard error. Exit codes: 0 done, 1 the relay could not run,
2 wrong usage or settings (as shells and typer use it).
"""

import contextlib
import dataclasses
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jwt
import typer
from rich.console import Console

from relay import log
from relay.addresses import media_addresses
from relay.clock import wall_s
from relay.config import DEV_KEY, DEV_SECRET, ApiKey, Config, load
from relay.errors import ConfigError, Refused, VeilError
from relay.version import version
from relay.webexport import export
from relay.webverify import RELAY, verify

EXIT_FAILED = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="veil",
    help="A WebRTC media relay that works with LiveKit client SDKs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
token_app = typer.Typer(help="Make what lets people in.", no_args_is_help=True)
web_app = typer.Typer(help="The built-in web client.", no_args_is_help=True)
keys_app = typer.Typer(help="Make key pairs that sign tokens.", no_args_is_help=True)
app.add_typer(token_app, name="token")
app.add_typer(keys_app, name="keys")
app.add_typer(web_app, name="web")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="VEIL_CONFIG", help="TOML file; veil.example.toml explains every setting."),
]
DevOption = Annotated[
    bool,
    typer.Option("--dev", help="Add the development key, which everybody knows, and listen on this machine alone."),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", help="Sign with this key of the settings (default: the first).")
]
TtlOption = Annotated[str, typer.Option("--ttl", help="How long it lets people in: 90s, 30m, 6h, 7d.")]


@app.command()
def serve(
    config: ConfigOption = None,
    dev: DevOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check the settings, say what they amount to, and stop.")
    ] = False,
    port: Annotated[int | None, typer.Option("--port", help="HTTP port, instead of server.http_port.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
) -> None:
    """Run the relay until it is told to stop (SIGTERM or Ctrl-C)."""
    overrides: dict[str, tuple[Any, str]] = {}
    if port is not None:
        overrides["server.http_port"] = (port, "--port")
    if log_level is not None:
        overrides["log.level"] = (log_level, "--log-level")
    settings = load(config, overrides=overrides, dev=dev)
    if not settings.keys:
        raise ConfigError(
            "there is no key to sign tokens with: make one with `veil keys new`, or try `veil serve --dev`."
        )
    addresses = media_addresses(settings)
    if check:
        for name, value in summary(settings, [f"{a.ip} as {a.advertised_ip}" for a in addresses]):
            typer.echo(f"{name:<12} {value}")
        return
    log.reopen_closed_streams()
    log.configure(settings.log.level, settings.log.format)
    # Read when NumPy is imported, which only the server does: OpenBLAS else starts a thread per core that is never used.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Imported here: the other commands need neither the event loop nor the data plane.
    from relay.server import run

    def load_anew() -> Config:
        return load(config, overrides=overrides, dev=dev)

    # A relay without a file has nothing to read anew: a hangup ends it, as it ends any program of a closed terminal.
    again = load_anew if config is not None else None
    code = run(settings, load_anew=again, on_ready=lambda server: greet(greeting(settings, server.origin)))
    log.flush_or_forget(sys.stdout)
    log.flush_or_forget(sys.stderr)
    raise typer.Exit(code)


def greet(text: str) -> None:
    """Print for whoever looks; where nobody can, calls are taken all the same."""
    try:
        typer.echo(text)
    except OSError as error:
        log.get_logger(__name__).warning("nothing can be printed", why=str(error))


def greeting(config: Config, origin: str) -> str:
    """Return what a person at the terminal is told once calls can be taken."""
    lines = [f"Veil {version()} takes calls: open {origin}"]
    if config.dev:
        lines.append(f"Development: only this machine can connect. Apps use the key {DEV_KEY}, secret {DEV_SECRET}.")
    return "\n".join([*lines, "Ctrl-C stops it."])


def port_range(ports: tuple[int, ...]) -> str:
    """Return "port 7882", or "ports 7882 to 7885"."""
    return f"port {ports[0]}" if len(ports) == 1 or not ports[0] else f"ports {ports[0]} to {ports[-1]}"


def summary(config: Config, media: list[str]) -> list[tuple[str, str]]:
    """Return what the settings amount to, in the words of a person who will run the relay."""
    server, ports = config.server, config.media
    customers = dict.fromkeys(key.customer for key in config.keys)
    return [
        ("page", config.origin),
        ("HTTP", f"{server.bind_ip} port {server.http_port}, {'TLS' if server.tls_certificate_file else 'no TLS'}"),
        ("media", f"UDP {port_range(ports.udp_ports)} on {', '.join(media)}"),
        ("keys", ", ".join(key.key for key in config.keys)),
        ("customers", ", ".join(f"{c} ({config.customer(c).tier}: e2ee {config.tier_of(c).e2ee})" for c in customers)),
        ("log", f"{config.log.level}, {config.log.format}"),
    ]


@token_app.command("create")
def token_create(
    room: Annotated[str, typer.Option("--room", help="Room the token opens; made on first join.")],
    identity: Annotated[
        str, typer.Option("--identity", help="Who it is for: unique in the room, a second join evicts the first.")
    ],
    name: Annotated[str, typer.Option("--name", help="What the others see (default: the identity).")] = "",
    ttl: TtlOption = "6h",
    can_publish: Annotated[bool, typer.Option(help="May send camera, microphone and screen.")] = True,
    can_subscribe: Annotated[bool, typer.Option(help="May receive what others send.")] = True,
    can_publish_data: Annotated[bool, typer.Option(help="May send data messages.")] = True,
    metadata: Annotated[str, typer.Option("--metadata", help="Text the app attaches to the participant.")] = "",
    attribute: Annotated[list[str] | None, typer.Option("--attribute", help="key=value; may be repeated.")] = None,
    config: ConfigOption = None,
    dev: DevOption = False,
    key: KeyOption = None,
) -> None:
    """Print an access token as LiveKit SDKs take it."""
    attributes = {}
    for item in attribute or ():
        left, equals, right = item.partition("=")
        if not equals or not left:
            raise ConfigError(f"--attribute is key=value, not {item!r}.")
        attributes[left] = right
    for option_name, value in (("--room", room), ("--identity", identity)):
        if not value.strip():
            raise ConfigError(f"{option_name} cannot be empty.")
    grants = {
        "room": room,
        "roomJoin": True,
        "canPublish": can_publish,
        "canSubscribe": can_subscribe,
        "canPublishData": can_publish_data,
    }
    typer.echo(
        mint_token(signing_key(load(config, dev=dev), key), identity, grants, seconds(ttl), name, metadata, attributes)
    )


@token_app.command("invite")
def token_invite(
    room: Annotated[str, typer.Option("--room", help="Room the link leads to.")],
    ttl: TtlOption = "7d",
    e2ee_profile: Annotated[
        str | None, typer.Option("--e2ee-profile", help="none, shared-passphrase or group; the room is that or closed.")
    ] = None,
    frame_format: Annotated[
        str | None, typer.Option("--frame-format", help="livekit_gcm or sframe, of an encrypted room.")
    ] = None,
    min_tier: Annotated[str | None, typer.Option("--min-tier", help="The room is at least as strict as this tier.")] = None,
    config: ConfigOption = None,
    dev: DevOption = False,
    key: KeyOption = None,
) -> None:
    """Print a link that lets anyone who has it join the room in a browser, until it expires."""
    from relay.policy.terms import Demands
    from relay.signaling import invites

    settings = load(config, dev=dev)
    try:
        demands = Demands(min_tier, e2ee_profile, frame_format)
        invite = invites.mint(signing_key(settings, key), room, ttl_s=seconds(ttl), demands=demands)
    except ValueError as error:
        raise ConfigError(f"no invite was made: {error}.") from None
    except Refused as refused:
        raise ConfigError(f"no invite was made: {refused.sentence}") from None
    typer.echo(invites.link(settings.origin, invite))


@keys_app.command("new")
def keys_new(
    customer: Annotated[str, typer.Option("--customer", help="Whose rooms its tokens open.")] = "default",
) -> None:
    """Print a new key pair as a table for veil.toml."""
    pair = ApiKey(key=f"VK{secrets.token_hex(6)}", secret=secrets.token_urlsafe(32), customer=customer)
    typer.echo("[[keys]]")
    for item in dataclasses.fields(pair):
        typer.echo(f'{item.name} = "{getattr(pair, item.name)}"')


@web_app.command("verify")
def web_verify(
    url: Annotated[str, typer.Argument(help="Where the client is served, such as https://calls.example.com.")],
) -> None:
    """Compare the web client that an address serves with this version's, file by file; ends with 1 when it differs."""
    from relay.signaling.web_files import hashes

    verdict = verify(url, hashes())
    for what, names in (
        ("differs", verdict.differing),
        ("missing", verdict.missing),
        ("not part of it", verdict.extra),
    ):
        for name in names:
            typer.echo(f"{what}: {name}")
    if verdict.is_same:
        typer.echo(f"{len(verdict.same)} files are those of veil {version()}.")
        if verdict.relay:
            typer.echo(f"Calls made there go through the relay at {verdict.relay}.")
        elif verdict.relay is None:
            typer.echo(f"No calls can be made there: {RELAY} names no address of a relay.")
        return
    typer.echo(f"This is not the web client of veil {version()}.")
    raise typer.Exit(EXIT_FAILED)


@web_app.command("export")
def web_export(
    folder: Annotated[Path, typer.Argument(help="A new folder, for a web server to host.")],
    server: Annotated[str, typer.Option("--server", help="The relay's address, such as https://calls.example.com.")],
) -> None:
    """Write the web client for another web server to host, and print the headers that it has to send.

    The relay's server.web_origin is then the address that people open there.
    """
    headers = export(folder, server)
    typer.echo(f"The web client of veil {version()} is in {folder}. Its web server sends with every file:", err=True)
    for name, value in headers.items():
        typer.echo(f"{name}: {value}")


@app.command("version")
def print_version() -> None:
    """Print the version."""
    typer.echo(f"veil {version()}")


def signing_key(config: Config, name: str | None) -> ApiKey:
    """Return the key of this name, or the first.   Errors: ConfigError when there is none."""
    if not config.keys:
        raise ConfigError("there is no key to sign with: give --config, VEIL_KEYS or --dev.")
    if name is None:
        return config.keys[0]
    for key in config.keys:
        if key.key == name:
            return key
    raise ConfigError(f"--key names no key of the settings; there are {', '.join(k.key for k in config.keys)}.")


def mint_token(
    key: ApiKey,
    identity: str,
    grants: dict[str, Any],
    ttl_s: int,
    name: str = "",
    metadata: str = "",
    attributes: dict[str, str] | None = None,
) -> str:
    """Return a JWT with LiveKit's claims, valid from now on for `ttl_s`."""
    now = wall_s()
    claims: dict[str, Any] = {"iss": key.key, "sub": identity, "nbf": now, "exp": now + ttl_s, "video": grants}
    claims |= {k: v for k, v in (("name", name), ("metadata", metadata), ("attributes", attributes)) if v}
    return jwt.encode(claims, key.secret, algorithm="HS256")


def seconds(text: str) -> int:
    """Return the duration `text` names, such as 90s, 30m, 6h or 7d.   Units: s.   Errors: ConfigError."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if not match or int(match[1]) == 0:
        raise ConfigError(f"--ttl is a number above zero with s, m, h or d, such as 6h, not {text!r}.")
    return int(match[1]) * {"s": 1, "": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


@contextlib.contextmanager
def errors_as_sentences() -> Iterator[None]:
    """End the process with one sentence where a person can act on the error; our bugs keep their traceback."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    try:
        yield
    except ConfigError as error:
        console.print(f"veil: {error}", markup=False)
        sys.exit(EXIT_USAGE)
    except VeilError as error:
        console.print(f"veil: {error}", markup=False)
        sys.exit(EXIT_FAILED)


def main() -> None:
    """Run the command line."""
    with errors_as_sentences():
        app()

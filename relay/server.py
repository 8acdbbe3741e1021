"""The composition root: builds the relay out of its parts, starts, drains and stops it."""

import asyncio
import contextlib
import dataclasses
import gc
import ipaddress
import resource
import signal
import ssl
from collections.abc import Callable
from typing import Any

import uvloop
from aiohttp import web

from relay import observe
from relay.addresses import media_addresses
from relay.config import Config
from relay.config_tiers import tier_table
from relay.errors import ConfigError, VeilError
from relay.handed import take_listener
from relay.hardening import harden
from relay.log import get_logger, lost_records
from relay.observe.account import account_since, take_account
from relay.plane import MAX_KEPT_BYTES, ListenAddress, Plane, slots_lost
from relay.rooms.room import Room
from relay.signaling import edge
from relay.signaling.client_api import ClientApi
from relay.signaling.conference import Conference
from relay.signaling.cross_origin import CrossOrigin
from relay.signaling.doorman import Doorman
from relay.signaling.ice_tcp import IceTcp
from relay.signaling.keyring import Keyring
from relay.signaling.livekit.http import LivekitHttp
from relay.signaling.livekit.reporter import Reporter
from relay.signaling.livekit.room_service import RoomService
from relay.signaling.livekit.twirp import Twirp
from relay.signaling.quality_api import QualityApi, explained
from relay.signaling.web_files import WebFiles
from relay.signaling.webhooks import Webhooks
from relay.version import version

log = get_logger(__name__)

# Request lines carry tokens with attributes and, uncompressed, whole offers; aiohttp's own limit is 8,190.
MAX_LINE_BYTES = 65_536
# What the last `leave` of every session has to get out; a client that is slower learns it from the closed socket.
DRAIN_S = 1.0
# Connections the kernel keeps while the loop is busy: a second of a flood. Beyond it a newcomer's first packet is dropped
# and comes again after a second.
BACKLOG = 1024
EXIT_OK = 0
EXIT_FAILED = 1


class Server:
    """One running relay."""

    def __init__(self, config: Config, *, strict: bool = False) -> None:
        self.config = config
        self.http_port = 0
        self._strict = strict
        self._refusals: dict[str, int] = {}
        self._plane: Plane | None = None
        self.conference: Conference | None = None
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._ice_tcp: IceTcp | None = None
        self._debugging: observe.Debugging | None = None
        self._keys = Keyring(config.keys)
        self._webhooks = Webhooks(config.webhooks, self._keys, self._refusals)

    async def start(self) -> None:
        """Open the media sockets, then the door, or take the one that a service manager holds open.

        Errors: ConfigError, PlaneError, OSError.
        """
        config = self.config
        port = config.media.udp_port
        listen = [ListenAddress(address.ip, port, address.advertised_ip) for address in media_addresses(config)]
        plane = self._plane = Plane(
            listen,
            workers=config.media.worker_count,
            srtp_backend=config.media.srtp_backend,
            socket_buffer_bytes=config.media.socket_buffer_bytes,
            peer_packets_per_s=config.limits.peer_packets_per_s,
            peer_bits_per_s=config.limits.peer_bits_per_s,
            overload_lag_ms=config.media.overload_lag_ms,
        )
        await plane.start()
        tiers = tier_table(config)
        conference = self.conference = Conference(
            plane, config.limits, tiers, self._refusals, config.turn, self._observer
        )
        if config.media.tcp_port:
            addresses = [(address.ip, address.advertised_ip) for address in listen]
            self._ice_tcp = IceTcp(plane, addresses, config.media.tcp_port, self._refusals)
            self._ice_tcp.start()
            conference.tcp_candidates = self._ice_tcp.candidates
        conference.start()
        self._webhooks.start()
        keys = self._keys
        doorman = Doorman(config.limits, trust_forwarded=config.server.trust_forwarded, refusals=self._refusals)
        livekit = LivekitHttp(conference, keys, doorman, self._refusals, strict=self._strict)
        service = RoomService(conference, can_unmute=config.rooms.enable_remote_unmute)
        twirp = Twirp(service, keys, doorman, self._refusals)
        allows_dev_join = config.dev and ipaddress.ip_address(config.server.bind_ip).is_loopback
        client_api = ClientApi(keys, self._refusals, allows_dev_join=allows_dev_join)
        app = edge.application(
            livekit,
            twirp,
            client_api,
            QualityApi(conference, keys, self._refusals),
            WebFiles(),
            CrossOrigin(config.server.web_origin),
            self._observed(plane, conference),
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=False,
            # A small body can inflate to a gigabyte, on the loop; no client of ours compresses its requests.
            auto_decompress=False,
            shutdown_timeout=DRAIN_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        assert self._runner.server is not None
        factory = doorman.factory(self._runner.server)
        if (handed := take_listener()) is not None:
            self._listener = await loop.create_server(factory, sock=handed, ssl=tls(config), backlog=BACKLOG)
        else:
            self._listener = await loop.create_server(
                factory, config.server.bind_ip, config.server.http_port, ssl=tls(config), backlog=BACKLOG
            )
        self.http_port = self._listener.sockets[0].getsockname()[1]
        candidates = [f"{address.advertised_ip}:{address.port}" for address in plane.addresses]
        log.info(
            "ready",
            page=self.origin,
            http_port=self.http_port,
            media=candidates,
            version=version(),
        )

    @property
    def origin(self) -> str:
        """The address people open, with the port that was really bound."""
        if self.config.server.web_origin or self.config.server.http_port == self.http_port:
            return self.config.origin
        return self.config.origin.removesuffix(f":{self.config.server.http_port}") + f":{self.http_port}"

    def reload(self, load_anew: Callable[[], Config]) -> bool:
        """Take keys, customers and tiers as the settings say now; False when they cannot be read and nothing changed.

        Sessions of a key that is gone or has another secret or customer end. Rooms keep what they began with.
        """
        try:
            config = load_anew()
            if not config.keys:
                raise ConfigError("there is no key to sign tokens with, so nobody could join.")
            table = tier_table(config)
        except ConfigError as error:
            log.error("settings were not read anew; those before still count", why=str(error))
            return False
        before, self.config = self.config, config
        self._keys.replace(config.keys)
        ended = 0
        if self.conference is not None:
            self.conference.tiers = table
            ended = self.conference.end_revoked(self._keys)
        sections = ("server", "media", "turn", "limits", "rooms", "webhooks", "log")
        waiting = [name for name in sections if getattr(before, name) != getattr(config, name)]
        if waiting:
            log.warning("changes that wait for a restart", sections=waiting)
        log.info(
            "keys, customers and tiers were read anew",
            keys=[key.key for key in config.keys],
            tiers={name: tier.e2ee for name, tier in config.tiers.items()},
            sessions_ended=ended,
        )
        return True

    async def stop(self) -> None:
        """Tell every client that it is over, close everything, give everything back."""
        if self._listener is not None:
            self._listener.close()
        if self._ice_tcp is not None:
            self._ice_tcp.stop()
        if self.conference is not None:
            self.conference.drain()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._debugging is not None:
            self._debugging.stop()
        if self.conference is not None:
            await self.conference.stop()
        await self._webhooks.stop()
        if self._plane is not None:
            await self._plane.stop()

    def _observer(self, room: Room) -> Reporter | None:
        return Reporter(room, self._webhooks) if self._webhooks.wants(room.key.customer) else None

    def _observed(self, plane: Plane, conference: Conference) -> list[web.RouteDef]:
        self._debugging = observe.Debugging(self._debugged(plane, conference))
        return [*observe.routes(self._watched(plane, conference)), *self._debugging.routes()]

    def _debugged(self, plane: Plane, conference: Conference) -> observe.Debugged:
        def find(sid: str) -> observe.Suspect | None:
            session = conference.find_session(sid)
            if session is None or session.hall is None:
                return None
            return observe.Suspect(session.sid, session.hall.room.sid, session.transports)

        def explain(sid: str) -> dict[str, Any] | None:
            session = conference.find_session(sid)
            return explained(session) if session is not None else None

        return observe.Debugged(
            find=find,
            explain=explain,
            capture=plane.capture,
            journal=plane.journal,
            snapshot=plane.snapshot,
            kept_bytes=MAX_KEPT_BYTES,
            token=self.config.server.metrics_token,
            is_dev=self.config.dev,
        )

    def _watched(self, plane: Plane, conference: Conference) -> observe.Watched:
        def totals() -> observe.Totals:
            counts = conference.counts()
            return observe.Totals(**dataclasses.asdict(counts))

        return observe.Watched(
            unready=lambda: "The server is shutting down." if conference.is_draining else None,
            snapshot=plane.snapshot,
            totals=totals,
            refusals=self._refusals,
            lost_records=lost_records,
            metrics_token=self.config.server.metrics_token,
        )


def tls(config: Config) -> ssl.SSLContext | None:
    """Return the TLS context the settings ask for.   Errors: ConfigError when the files cannot be used."""
    if not config.server.tls_certificate_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.server.tls_certificate_file, config.server.tls_key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.tls_certificate_file cannot be used: {error}") from None
    return context


def allow_descriptors() -> int:
    """Take as many file descriptors as the system allows; return how many.

    The usual soft limit of 1,024 is there for programs that use select(); strangers' connections alone could reach it.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def settle_garbage_collector() -> None:
    """Leave what lives as long as the process out of collections, and collect the rest less often.

    Reference counts free nearly everything; the collector is for the circles that sessions leave. At CPython's 700
    allocations a join alone sets it off dozens of times, each time over modules and settings as well.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def serve(
    config: Config,
    *,
    on_ready: Callable[[Server], None] | None = None,
    load_anew: Callable[[], Config] | None = None,
) -> None:
    """Run a relay until SIGTERM or SIGINT; with `load_anew`, SIGHUP has it read keys, customers and tiers anew."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    before = take_account()
    server = Server(config)
    try:
        await server.start()
        if load_anew is not None:
            loop.add_signal_handler(signal.SIGHUP, server.reload, load_anew)
        settle_garbage_collector()
        if on_ready is not None:
            on_ready(server)
        await stopping.wait()
    finally:
        await server.stop()
        await loop.shutdown_default_executor()
        kept = await account_since(before)
        log.info(
            "stopped",
            threads_kept=kept.threads,
            descriptors_kept=kept.descriptors,
            tasks_kept=kept.tasks,
            # In the debug twin Plane.stop has ended the relay already where one is missing.
            slots_kept=slots_lost(),
        )


def run(
    config: Config,
    *,
    on_ready: Callable[[Server], None] | None = None,
    load_anew: Callable[[], Config] | None = None,
) -> int:
    """Run a relay in this process and return its exit code."""
    try:
        harden()
        allow_descriptors()
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(config, on_ready=on_ready, load_anew=load_anew))
    except VeilError:
        raise
    except OSError as error:
        raise VeilError(f"The relay could not start: {error}") from None
    return EXIT_OK

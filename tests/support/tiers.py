"""Three customers of three tiers on a relay with settings in a file, and tokens of their keys.

    async with tiered_relay(tmp_path) as relay:
        token = CLINIC.token("ada", room="r1")
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.cli import mint_token
from relay.config import ApiKey
from tests.support.relay_process import RelayProcess, relay_process

RELOAD_S = 5.0


@dataclass(frozen=True)
class Signer:
    """A customer's key."""

    key: ApiKey
    tier: str

    def token(self, identity: str, *, room: str = "room", attributes: dict[str, str] | None = None, **grants: Any) -> str:
        """Return a token that opens the room of this customer; grants go over full permissions."""
        rights = {"roomJoin": True, "canPublish": True, "canSubscribe": True, "canPublishData": True}
        return mint_token(self.key, identity, {"room": room, **rights, **grants}, 600, name=identity, attributes=attributes)

    def settings(self) -> str:
        """Return the tables of this key and its customer."""
        key = self.key
        named = f'[[keys]]\nkey = "{key.key}"\nsecret = "{key.secret}"\ncustomer = "{key.customer}"\n'
        return named + f'[[customers]]\nname = "{key.customer}"\ntier = "{self.tier}"\n'


def _signer(name: str, tier: str) -> Signer:
    return Signer(ApiKey(f"VK{name}", f"{name}-secret-".ljust(40, "0"), name), tier)


SHOP, CLUB, CLINIC = _signer("shop", "free"), _signer("club", "mixed"), _signer("clinic", "paid")
TIERS = '[tiers.mixed]\ne2ee = "allowed"\n'


def settings(*signers: Signer, more: str = TIERS) -> str:
    """Return a settings file: these customers, and further tables."""
    return '[server]\nbind_ip = "127.0.0.1"\n' + "".join(signer.settings() for signer in signers) + more


class TieredRelay:
    """A running relay and the file it was started with."""

    def __init__(self, process: RelayProcess, file: Path) -> None:
        self.process = process
        self.file = file

    async def reload(self, text: str) -> str:
        """Write the file anew and have it read; return what the relay logged about that.   Errors: TimeoutError."""
        self.file.write_text(text, encoding="utf-8")
        before = len(self.process.log_text())
        self.process.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(RELOAD_S):
            while True:
                for line in self.process.log_text()[before:].splitlines():
                    if "read anew" in line:
                        return line
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def tiered_relay(folder: Path, text: str = "") -> AsyncIterator[TieredRelay]:
    """Start a relay with these settings; by default with all three customers."""
    file = folder / "veil.toml"
    file.write_text(text or settings(SHOP, CLUB, CLINIC), encoding="utf-8")
    async with relay_process(arguments=("--config", str(file))) as process:
        yield TieredRelay(process, file)

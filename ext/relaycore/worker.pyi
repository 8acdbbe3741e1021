from collections.abc import Iterable
from typing import Any

from relaycore.exchange import WorkerExchange
from relaycore.port import (
    CAPTURE_KEPT_BYTES as CAPTURE_KEPT_BYTES,
)
from relaycore.port import (
    CAPTURE_LIMITS as CAPTURE_LIMITS,
)
from relaycore.port import (
    CODEC_LIMIT as CODEC_LIMIT,
)
from relaycore.port import (
    CODECS as CODECS,
)
from relaycore.port import (
    RID_LIMIT as RID_LIMIT,
)
from relaycore.port import (
    SSRC_LIMIT as SSRC_LIMIT,
)
from relaycore.port import (
    CommandPort,
)
from relaycore.port import (
    EventKind as EventKind,
)
from relaycore.port import (
    MailboxFull as MailboxFull,
)
from relaycore.port import (
    error_name as error_name,
)

BACKENDS: dict[str, int]

def is_debug() -> bool: ...
def leaks() -> dict[str, int]: ...

class Worker(CommandPort):
    def __init__(
        self,
        addresses: Iterable[tuple[str, int]],
        *,
        backend: str = "auto",
        seed: int,
        index: int = 0,
        small_slots: int = 16384,
        large_slots: int = 32768,
        socket_buffer_bytes: int = ...,
        exchange: WorkerExchange | None = None,
        peer_packets_per_s: int = 10_000,
        peer_bits_per_s: int = 50_000_000,
        overload_lag_ms: int = 50,
    ) -> None: ...
    def start(self) -> None: ...
    def request_stop(self) -> int: ...
    def stop(self, timeout_s: float = 5.0) -> None: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def sockets(self) -> list[dict[str, Any]]: ...
    @property
    def backend_name(self) -> str: ...

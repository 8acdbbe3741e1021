from relaycore.exchange import WorkerExchange
from relaycore.port import CommandPort

class SansIoEngine(CommandPort):
    next_ns: int | None
    def __init__(
        self,
        *,
        seed: int,
        slots: int = 4096,
        backend: int = 0,
        exchange: WorkerExchange | None = None,
        index: int = 0,
        peer_packets_per_s: int = 0,
        peer_bits_per_s: int = 0,
        overload_lag_ns: int = 0,
    ) -> None: ...
    @property
    def slots_used(self) -> int: ...
    @property
    def has_mail(self) -> bool: ...
    def feel(self, lag_ns: int, now_ns: int) -> None: ...
    @property
    def overload_level(self) -> int: ...
    @property
    def takes_gso(self) -> bool: ...
    @takes_gso.setter
    def takes_gso(self, value: bool) -> None: ...
    def receive(self, datagram: bytes, address: tuple[str, int], now_ns: int, socket_index: int = 0) -> None: ...
    def poll(self, now_ns: int) -> list[tuple[bytes, tuple[str, int]]]: ...

from typing import final

Buffer = bytes | bytearray | memoryview

KINDS: dict[str, int]
REASONS: dict[int, str | None]
HEAD_BYTES: int
TAIL_BYTES: int

@final
class Probe:
    def __init__(self, kind: str) -> None: ...
    def announce(self, first_kid: int, last_kid: int) -> None: ...
    def packet(
        self,
        payload: Buffer,
        *,
        codec: int,
        is_video: bool = True,
        encoding: int = 0,
        ssrc: int = 1,
        ext_seq: int = 0,
        rtp_ts: int = 0,
        marker: bool = False,
        dd: Buffer | None = None,
        now_ns: int = 0,
    ) -> bool: ...
    def repair(self, encoding: int = 0) -> bool: ...
    @property
    def waits(self) -> bool: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def is_undeclared(self) -> bool: ...
    @property
    def counts(self) -> dict[str, int]: ...

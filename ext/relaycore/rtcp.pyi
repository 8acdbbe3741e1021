from collections.abc import Sequence
from typing import Any

def parse(data: bytes) -> list[dict[str, Any]]: ...
def cname(data: bytes, ssrc: int) -> bytes: ...
def report(ssrc: int, sender_info: dict[str, int] | None, blocks: list[dict[str, int]], cap: int = 1200) -> bytes: ...
def build(
    kind: str,
    ssrc: int,
    *,
    media_ssrc: int = 0,
    seqs: Sequence[int] = (),
    command_seq: int = 0,
    text: bytes = b"",
    cap: int = 1200,
) -> bytes: ...

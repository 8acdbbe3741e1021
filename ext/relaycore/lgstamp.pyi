def siphash(key: bytes, data: bytes, piece: int = ...) -> int: ...
def frame(
    codec: str,
    key: bytes,
    *,
    stream: int,
    number: int,
    size: int,
    reference: int = 0,
    is_keyframe: bool = False,
    temporal_id: int = 0,
    send_ns: int = 0,
) -> bytes: ...

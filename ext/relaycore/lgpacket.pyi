def depdesc(
    temporal_layers: int,
    template_id: int,
    frame_number: int,
    *,
    is_first: bool,
    is_last: bool,
    is_keyframe: bool,
    width: int = 640,
    height: int = 360,
) -> bytes: ...
def descriptor(
    codec: int,
    place: int,
    packets: int,
    *,
    picture_id: int = 0,
    tl0: int = 0,
    temporal_id: int = 0,
    temporal_layers: int = 1,
    is_keyframe: bool = False,
    is_sync: bool = False,
) -> tuple[bytes, int, bool]: ...

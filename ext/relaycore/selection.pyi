class SelectionFace:
    def __init__(self, codec: int) -> None: ...
    def want(self, spatial: int = 7, temporal: int = 7, shown_ts: int | None = None) -> None: ...
    def take(
        self,
        rtp_ts: int,
        *,
        spatial_id: int = 0,
        temporal_id: int = 0,
        switch_up: bool = False,
        keyframe: bool = False,
        picture_id: int | None = None,
    ) -> tuple[int | None, int | None]: ...
    @property
    def forwarded(self) -> tuple[int, int]: ...

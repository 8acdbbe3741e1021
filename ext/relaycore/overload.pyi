class OverloadFace:
    def __init__(self, limit_ns: int) -> None: ...
    def feel(self, lag_ns: int, now_ns: int) -> bool: ...
    @property
    def level(self) -> int: ...
    def judge(
        self,
        level: int,
        rtp_ts: int,
        ext_seq: int,
        *,
        temporal_id: int = 0,
        switch_up: bool = False,
        keyframe: bool = False,
        discardable: bool = False,
    ) -> tuple[int, bool]: ...

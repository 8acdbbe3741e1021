from typing import Any

import numpy as np

BUCKETS: int
HISTOGRAM_EDGES_NS: np.ndarray
ENDPOINT_DTYPE: np.dtype
SENDER_DTYPE: np.dtype
RECEIVER_DTYPE: np.dtype
THREAD_COUNTS: tuple[str, ...]

def merge(parts: dict[str, list[Any]]) -> dict[str, Any]: ...
def bucket_of(value_ns: int) -> int: ...
def percentile(counts: Any, q: float) -> int | None: ...
def verdict(stats: dict[str, Any], drain_ms: float, is_lazy: bool) -> dict[str, Any]: ...

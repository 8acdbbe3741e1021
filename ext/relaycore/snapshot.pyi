import numpy as np

TRANSPORT_DTYPE: np.dtype
STREAM_DTYPE: np.dtype
EGRESS_DTYPE: np.dtype
LAYER_DTYPE: np.dtype
ERROR_NAMES: tuple[str, ...]

def pattern(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...

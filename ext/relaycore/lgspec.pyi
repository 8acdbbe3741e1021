from typing import Any

KINDS: dict[str, int]
CODECS_OF_KIND: dict[str, tuple[str, ...]]
CLOCK_RATE_HZ: dict[str, int]
SPEC: dict[str, dict[str, Any]]
ENCODING: dict[str, Any]
RECEIVER: dict[str, Any]

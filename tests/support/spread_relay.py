"""The relay with its rooms torn apart: `python -m tests.support.spread_relay serve ...` puts each transport on another worker.

In a real relay a room does so only above 60 % of a core, which no test reaches.
"""

from relay.cli import main
from relay.plane import placement

if __name__ == "__main__":
    placement.FULL_LOAD = 0.0
    main()

"""What an operator sees: /healthz, /readyz and /metrics, mounted by the server with `routes(watched)`.

Reads snapshots and counts; changes nothing and decides nothing.
"""

from relay.observe.routes import routes
from relay.observe.watched import Totals, Watched

__all__ = ["Totals", "Watched", "routes"]

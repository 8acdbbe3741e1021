"""What an operator sees: /healthz, /readyz and /metrics, mounted by the server with `routes(watched)`; /debug by `Debugging`.

Reads snapshots, counts and headers; changes nothing and decides nothing.
"""

from relay.observe.debug import Debugged, Debugging, Suspect
from relay.observe.routes import routes
from relay.observe.watched import Totals, Watched

__all__ = ["Debugged", "Debugging", "Suspect", "Totals", "Watched", "routes"]

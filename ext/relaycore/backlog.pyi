"""Nothing of this module is visible from Python: it works on the worker's own sockets (see udp.pyi)."""

"""The listening socket that a service manager opened and keeps open while the relay is restarted (sd_listen_fds(3)).

What clients send while no relay is there waits in that socket instead of being refused, so that a call is back as soon as
the next relay is ready, and not when its clients happen to try again.
"""

import os
import socket
from collections.abc import MutableMapping

from relay.errors import ConfigError

FIRST_DESCRIPTOR = 3
_NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take_listener(environ: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """Return the socket handed to this process, None when there is none; a second call returns None.

    Errors: ConfigError when it is not one listening TCP socket.
    """
    said = {name: environ.pop(name, "") for name in _NAMES}
    if said["LISTEN_PID"] != str(os.getpid()):
        return None
    if said["LISTEN_FDS"] != "1":
        raise ConfigError(f"LISTEN_FDS is {said['LISTEN_FDS']!r}: the relay takes one socket, for HTTP.")
    try:
        os.set_inheritable(FIRST_DESCRIPTOR, False)
        handed = socket.socket(fileno=FIRST_DESCRIPTOR)
        listens = handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS names descriptor {FIRST_DESCRIPTOR}, which is no socket: {error}") from None
    is_tcp = handed.family in (socket.AF_INET, socket.AF_INET6) and handed.type == socket.SOCK_STREAM
    if not is_tcp or not listens:
        handed.detach()
        raise ConfigError("The socket that was handed over is not a listening TCP socket.")
    handed.setblocking(False)
    return handed

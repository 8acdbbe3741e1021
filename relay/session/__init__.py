"""Sessions: the state machines of one transport, without sockets, clocks or an event loop (DESIGN §3).

`Transport` is the facade; `events` says what it reports, `errors` what it raises. Names are loaded on first use, so
that `python -m relay.session.states` and whoever needs one part loads that part alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.session.certificate import Certificate
    from relay.session.errors import (
        ChannelClosed,
        ChannelFull,
        FingerprintRefused,
        MessageTooLarge,
        SessionError,
        TooManyChannels,
    )
    from relay.session.events import (
        AssociationClosed,
        ChannelClosedEvent,
        ChannelDrained,
        ChannelOpened,
        DatagramReady,
        Event,
        HandshakeFailed,
        MessageReceived,
        SrtpKeys,
        SrtpKeysReady,
        TransportClosed,
    )
    from relay.session.states import AssociationState, TransportState
    from relay.session.transport import Transport

_HOME = {
    "Certificate": "certificate",
    **dict.fromkeys(
        ("ChannelClosed", "ChannelFull", "FingerprintRefused", "MessageTooLarge", "SessionError", "TooManyChannels"),
        "errors",
    ),
    **dict.fromkeys(
        (
            "AssociationClosed", "ChannelClosedEvent", "ChannelDrained", "ChannelOpened", "DatagramReady", "Event",
            "HandshakeFailed", "MessageReceived", "SrtpKeys", "SrtpKeysReady", "TransportClosed",
        ),
        "events",
    ),
    "AssociationState": "states",
    "TransportState": "states",
    "Transport": "transport",
}

__all__ = [
    "AssociationClosed", "AssociationState", "Certificate", "ChannelClosed", "ChannelClosedEvent", "ChannelDrained",
    "ChannelFull", "ChannelOpened", "DatagramReady", "Event", "FingerprintRefused", "HandshakeFailed",
    "MessageReceived", "MessageTooLarge", "SessionError", "SrtpKeys", "SrtpKeysReady", "TooManyChannels", "Transport",
    "TransportClosed", "TransportState",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

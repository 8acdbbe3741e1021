"""The exceptions of a session: what a caller inside the relay did that cannot be done.

What a *remote* endpoint does wrong never raises: it is counted, or it becomes an event (`HandshakeFailed`,
`AssociationClosed`). `states.IllegalTransition` is our own bug and is not one of these.
"""

from relay.errors import VeilError


class SessionError(VeilError):
    """Base of everything a transport raises on purpose."""


class FingerprintRefused(SessionError):
    """The remote description offers no certificate fingerprint that is safe to trust (RFC 8122 §5)."""


class ChannelClosed(SessionError):
    """The data channel, or the association under it, is gone or going."""


class ChannelFull(SessionError):
    """More is waiting to be sent than a slow receiver is allowed; `ChannelDrained` says when to try again."""


class TooManyChannels(SessionError):
    """The transport already carries as many data channels as one may."""


class MessageTooLarge(SessionError):
    """The message is longer than both ends agreed to carry."""

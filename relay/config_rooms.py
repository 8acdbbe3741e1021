"""Settings of the server API and of webhooks."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from relay.config_read import MISSING, Tree, option


@dataclass(frozen=True)
class Rooms:
    """What the server API (LiveKit's RoomService) may do in calls."""

    enable_remote_unmute: bool = option(
        False,
        "Let it unmute microphones and cameras, too. Off, as on LiveKit servers: only the person in front of one decides "
        "that it is heard or seen.",
    )


@dataclass(frozen=True)
class Webhook:
    """Somebody's own server that is told what happens in its calls."""

    api_key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = option(
        MISSING,
        "One of the keys above. It signs the events, as LiveKit does, and its customer's calls are the only ones told of.",
    )
    urls: tuple[str, ...] = option(
        (),
        'Where events go, such as ["https://app.example.com/livekit"]. They name rooms and participants: use https.',
    )


def check_webhooks(hooks: Sequence[Webhook], keys: Collection[str], tree: Tree) -> None:
    """Refuse receivers that cannot be reached or that nothing signs for.   Errors: ConfigError."""
    for position, hook in enumerate(hooks):
        if hook.api_key not in keys:
            raise tree.wrong(("webhooks", position, "api_key"), f"is {hook.api_key}, and no key has that name.")
        if not hook.urls:
            raise tree.wrong(("webhooks", position, "urls"), "names nobody to tell.")
        for number, url in enumerate(hook.urls):
            if not re.fullmatch(r"https?://[^\s/?#]+(?:[/?][^\s#]*)?", url):
                raise tree.wrong(("webhooks", position, "urls", number), "is http(s)://host/path.")

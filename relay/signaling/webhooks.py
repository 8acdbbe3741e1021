"""Tells a customer's own server what happens in its calls: LiveKit's webhooks, signed with the customer's API key.

Each address has a queue of its own, in order and bounded; a server that does not take its events is asked again a few times,
later and later, and then loses them, never a call. The token in `Authorization` carries the SHA-256 of the body. An event goes to
the customer whose key signs it, and to nobody else; redirects are not followed, since nobody configured where they lead.
"""

import asyncio
import base64
import hashlib
from collections import deque
from collections.abc import Iterable
from urllib.parse import urlsplit

import aiohttp
from google.protobuf import json_format
from livekit.protocol import models, webhook

from relay.clock import wall_s
from relay.config_rooms import Webhook
from relay.ids import new_token
from relay.log import get_logger
from relay.signaling.jwt_edge import sign_claims
from relay.signaling.keyring import Keyring
from relay.signaling.tasks import Tasks

log = get_logger(__name__)

# Some minutes of a busy relay; beyond it the newest are dropped and counted in the next one that goes out.
MAX_QUEUED = 1000
ATTEMPTS = 5
FIRST_WAIT_S = 0.5
ANSWER_S = 5.0
# A receiver gets the body at once; the token need not outlive its retries by much.
TOKEN_TTL_S = 300
# What may wait for a receiver when the relay stops.
LAST_WORDS_S = 0.5


class Webhooks:
    """The receivers of one relay."""

    def __init__(
        self, hooks: Iterable[Webhook], keys: Keyring, refusals: dict[str, int], *, first_wait_s: float = FIRST_WAIT_S
    ) -> None:
        self._keys = keys
        self._refusals = refusals
        self._first_wait_s = first_wait_s
        self._tasks = Tasks()
        self._http: aiohttp.ClientSession | None = None
        self._receivers = [_Receiver(url, hook.api_key) for hook in hooks for url in hook.urls]

    def start(self) -> None:
        """Begin to deliver."""
        if not self._receivers:
            return
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        for receiver in self._receivers:
            key = self._keys.find(receiver.api_key)
            host = urlsplit(receiver.url).netloc.rpartition("@")[2]
            log.info("webhook", host=host, customer=key.customer if key is not None else "", key=receiver.api_key)
            self._tasks.spawn(self._deliver(receiver), "webhook")

    def wants(self, customer: str) -> bool:
        """True when somebody is told of this customer's rooms."""
        return any(self._customer_of(receiver) == customer for receiver in self._receivers)

    def tell(
        self,
        customer: str,
        event: str,
        room: models.Room,
        participant: models.ParticipantInfo | None = None,
        track: models.TrackInfo | None = None,
    ) -> None:
        """Queue an event for the receivers of this customer."""
        told = webhook.WebhookEvent(
            event=event, room=room, participant=participant, track=track, id=f"EV_{new_token(12)}", created_at=wall_s()
        )
        for receiver in self._receivers:
            if self._customer_of(receiver) != customer:
                continue
            if len(receiver.queue) >= MAX_QUEUED:
                receiver.dropped += 1
                self._count("webhook_queue")
                continue
            receiver.queue.append(told)
            receiver.told_all.clear()
            receiver.has_some.set()

    async def stop(self) -> None:
        """Give receivers a moment for the last events, and end."""
        waits = [asyncio.ensure_future(receiver.told_all.wait()) for receiver in self._receivers]
        if waits:
            _, late = await asyncio.wait(waits, timeout=LAST_WORDS_S)
            for wait in late:
                wait.cancel()
        self._tasks.cancel()
        await self._tasks.wait()
        if self._http is not None:
            await self._http.close()

    def _customer_of(self, receiver: "_Receiver") -> str | None:
        key = self._keys.find(receiver.api_key)
        return key.customer if key is not None else None

    async def _deliver(self, receiver: "_Receiver") -> None:
        while True:
            await receiver.has_some.wait()
            event = receiver.queue[0]
            event.num_dropped = receiver.dropped
            if await self._post(receiver, event):
                receiver.dropped -= event.num_dropped
            else:
                receiver.dropped += 1
                self._count("webhook")
            receiver.queue.popleft()
            if not receiver.queue:
                receiver.has_some.clear()
                receiver.told_all.set()

    async def _post(self, receiver: "_Receiver", event: webhook.WebhookEvent) -> bool:
        assert self._http is not None
        body = json_format.MessageToJson(event, indent=None).encode()
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._first_wait_s * 2 ** (attempt - 1))
            key = self._keys.find(receiver.api_key)
            if key is None:
                why = "its key was taken back"
                break
            now_s = wall_s()
            token = sign_claims({"nbf": now_s, "exp": now_s + TOKEN_TTL_S, "sha256": digest}, key)
            headers = {"Content-Type": "application/webhook+json", "Authorization": token}
            try:
                async with self._http.post(receiver.url, data=body, headers=headers, allow_redirects=False) as answer:
                    if answer.status < 300:
                        return True
                    why = f"status {answer.status}"
                    if answer.status < 500 and answer.status not in (408, 429):
                        break
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = type(error).__name__
        log.warning("a webhook did not take an event", host=urlsplit(receiver.url).hostname, lost=event.event, why=why)
        return False

    def _count(self, reason: str) -> None:
        self._refusals[reason] = self._refusals.get(reason, 0) + 1


class _Receiver:
    """One address and what it has not been told yet."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self.api_key = api_key
        self.queue: deque[webhook.WebhookEvent] = deque()
        self.has_some = asyncio.Event()
        self.told_all = asyncio.Event()
        self.told_all.set()
        self.dropped = 0

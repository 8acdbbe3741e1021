"""Receivers that are subscribed to on other workers than their own: made with the first subscription there, gone with the last.

The subscriber's worker gets a mirror, the publisher's an export to it. Both exist before the first egress is asked for,
so that nothing the mirror demands comes too early.
"""

from dataclasses import dataclass

from relay.plane.feed import Feed, Shared


@dataclass
class _Mirror:
    made: Shared
    users: int = 0


class Mirrors:
    """The mirrors of one receiver, by worker."""

    def __init__(self, receiver: int, kind: str, encodings: int, home: Feed) -> None:
        self._receiver = receiver
        self._kind = kind
        self._encodings = encodings
        self._home = home
        self._by_feed: dict[Feed, _Mirror] = {}
        self._is_gone = False

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """The other workers that have a mirror, or soon will."""
        return tuple(self._by_feed)

    def use(self, feed: Feed) -> Shared:
        """Count one subscription on a worker; wait for the answer before asking for it. Undone by `release`."""
        mirror = self._by_feed.get(feed)
        if mirror is None:
            made = Shared(self._make(feed), lambda succeeded: self._on_made(feed, made, succeeded))
            mirror = self._by_feed[feed] = _Mirror(made)
        mirror.users += 1
        return mirror.made

    def release(self, feed: Feed) -> None:
        mirror = self._by_feed.get(feed)
        # A mirror that could not be made is gone already, with all who waited for it.
        if mirror is None:
            return
        mirror.users -= 1
        if mirror.users == 0 and mirror.made.is_done:
            self._remove(feed)

    def drop(self) -> None:
        """The receiver itself is gone: its exports went with it, the mirrors go with their egresses."""
        self._is_gone = True
        for feed, mirror in list(self._by_feed.items()):
            if mirror.made.is_done:
                self._remove(feed)

    async def _make(self, feed: Feed) -> None:
        is_video = self._kind == "video"
        await feed.call(feed.worker.add_mirror, self._receiver, self._home.index, is_video, self._encodings)
        try:
            await self._home.call(self._home.worker.add_export, self._receiver, feed.index)
        except BaseException:
            feed.post_unless_over(feed.worker.remove_receiver, self._receiver)
            raise

    def _on_made(self, feed: Feed, made: Shared, succeeded: bool) -> None:
        mirror = self._by_feed.get(feed)
        # It may have gone between its making and this call, even have a successor.
        if mirror is None or mirror.made is not made:
            return
        if not succeeded:
            del self._by_feed[feed]
        elif self._is_gone or mirror.users == 0:
            self._remove(feed)

    def _remove(self, feed: Feed) -> None:
        del self._by_feed[feed]
        if not self._is_gone:
            self._home.post_unless_over(self._home.worker.remove_export, self._receiver, feed.index)
        feed.post_unless_over(feed.worker.remove_receiver, self._receiver)

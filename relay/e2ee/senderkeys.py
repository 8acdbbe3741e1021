"""Sender keys that ratchet (RFC 9605 section 5.1): a sender steps forward when somebody joins, receivers follow by the number.

    KID = generation << R | step mod 2^R          a new generation is a fresh base key, after somebody left

Receivers follow only forward and only under a frame that opens, so a forged number moves nothing and costs at most `window`
derivations.
"""

from dataclasses import dataclass, field

from relay.e2ee.sframe import DEFAULT_SUITE, FrameKey, Opener, ratchet

WINDOW = 16


@dataclass(frozen=True, slots=True)
class SenderKid:
    """A sender key's number. Steps wrap around."""

    generation: int
    step: int
    ratchet_bits: int

    @property
    def kid(self) -> int:
        return self.generation << self.ratchet_bits | self.step % (1 << self.ratchet_bits)

    @classmethod
    def of(cls, kid: int, ratchet_bits: int) -> "SenderKid":
        return cls(kid >> ratchet_bits, kid & (1 << ratchet_bits) - 1, ratchet_bits)


@dataclass(frozen=True, slots=True)
class SenderKey:
    """One rung: what a sender seals under, and what it tells who may listen from here on."""

    base_key: bytes = field(repr=False)
    generation: int
    step: int = 0
    ratchet_bits: int = 8
    suite: int = DEFAULT_SUITE

    def __post_init__(self) -> None:
        if self.ratchet_bits < 1:
            raise ValueError("a ratchet needs at least one bit for its steps")

    @property
    def number(self) -> SenderKid:
        return SenderKid(self.generation, self.step, self.ratchet_bits)

    def frame_key(self) -> FrameKey:
        return FrameKey(self.base_key, self.number.kid, self.suite)

    def ratcheted(self, steps: int = 1) -> "SenderKey":
        """Return a later rung; none leads back."""
        base_key = self.base_key
        for _ in range(steps):
            base_key = ratchet(base_key, self.suite)
        return SenderKey(base_key, self.generation, self.step + steps, self.ratchet_bits, self.suite)


class FollowingOpener(Opener):
    """A receiver's keys of one sender whose steps it follows; frames of recent steps still open."""

    def __init__(self, limit: int = 16, window: int = WINDOW) -> None:
        super().__init__(limit)
        self._window = window
        self._rungs: dict[int, SenderKey] = {}

    def follow(self, key: SenderKey) -> None:
        """Take a generation's first key, or a rung of it that was given to us. One that was passed already changes nothing."""
        known = self._rungs.get(key.generation)
        if known is not None and key.step < known.step and key.ratcheted(known.step - key.step) == known:
            return
        self._rungs.pop(key.generation, None)
        self._rungs[key.generation] = key
        while len(self._rungs) > self._limit:
            del self._rungs[next(iter(self._rungs))]
        self.add(key.frame_key())

    def forget_generation(self, generation: int) -> None:
        """Open nothing of this generation any more."""
        rung = self._rungs.pop(generation, None)
        if rung is not None:
            for kid in list(self._keys):
                if SenderKid.of(kid, rung.ratchet_bits).generation == generation:
                    self.forget(kid)

    def _look_ahead(self, kid: int) -> FrameKey | None:
        found = self._later(kid)
        return None if found is None else found.frame_key()

    def _move_to(self, key: FrameKey) -> None:
        rung = self._later(key.kid)
        assert rung is not None
        # Half a turn behind, a number may soon name a later step.
        size = 1 << rung.ratchet_bits
        for kid in list(self._keys):
            number = SenderKid.of(kid, rung.ratchet_bits)
            if number.generation == rung.generation and (rung.step - number.step) % size >= size // 2:
                self.forget(kid)
        self.follow(rung)

    def _later(self, kid: int) -> SenderKey | None:
        for rung in self._rungs.values():
            number = SenderKid.of(kid, rung.ratchet_bits)
            if number.generation != rung.generation:
                continue
            size = 1 << rung.ratchet_bits
            ahead = (number.step - rung.step) % size
            if 0 < ahead <= min(self._window, size // 2):
                return rung.ratcheted(ahead)
        return None

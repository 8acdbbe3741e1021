"""What can be sent of every video of this relay, at the rates told last: made once for all who see it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from relay.quality.choice import EncodingShape
from relay.quality.ladder import ALL, Ladder, Option
from relay.rooms.permissions import Source
from relay.rooms.publication import Publication
from relay.signaling.publishing import Carried

if TYPE_CHECKING:
    from relay.signaling.measuring import Measuring, Rate

# Bits per pixel at 30 frames per second, of encodings that were neither announced with a rate nor measured yet:
# 1.9 Mbit/s of 720p, near what browsers are configured for.
GUESSED_BITS_PER_PIXEL = 2.1
GUESSED_BPS = 300_000
# Above what a picture of 4K takes. Whoever announces more has it kept free, and looked for on paths, for nobody.
MOST_ANNOUNCED_BPS = 25_000_000


class Ladders:
    """The ladders of all videos, kept while what they are made of stays."""

    def __init__(self, measuring: "Measuring") -> None:
        self._measuring = measuring
        # By receiver: what they were made of, and they.
        self._made: dict[int, tuple[object, Ladder]] = {}

    def of(self, publication: Publication, carried: Carried) -> Ladder:
        """Return the options of a video."""
        active = frozenset(publication.active_encodings)
        basis = (
            active,
            publication.layers,
            publication.height,
            publication.encoding_count,
            tuple(carried.layers.items()),
        )
        made = self._made.get(carried.receiver)
        if made is None or made[0] != basis:
            shapes = publication.shapes()
            rates = self._measuring.rates_of(carried.receiver)
            options = [
                option
                for encoding in sorted(active)
                if 0 <= encoding < len(shapes)
                for option in _options(publication, encoding, shapes[encoding], rates.get(encoding), carried.layers)
            ]
            made = basis, Ladder(options, is_screen=is_screen(publication))
            self._made[carried.receiver] = made
        return made[1]

    def on_rates(self, receivers: set[int]) -> None:
        """Make those of these receivers anew, and forget those that nothing comes from any more."""
        known = self._measuring.receivers
        self._made = {
            number: made for number, made in self._made.items() if number in known and number not in receivers
        }


def is_screen(publication: Publication) -> bool:
    """True for a picture that is read, not watched."""
    return publication.source is Source.SCREEN_SHARE


def announced_bps(publication: Publication, encoding: int, shape: EncodingShape) -> int:
    """Return what an encoding will cost by what its publisher said, or by its size."""
    ordered = sorted(publication.layers, key=lambda layer: layer.quality)
    guessed = int(shape.width * shape.height * GUESSED_BITS_PER_PIXEL) or GUESSED_BPS * (encoding + 1)
    guessed = min(guessed, MOST_ANNOUNCED_BPS)
    if len(ordered) != publication.encoding_count or not ordered[encoding].bitrate_bps:
        return guessed
    return min(ordered[encoding].bitrate_bps, 4 * guessed, MOST_ANNOUNCED_BPS)


def _options(
    publication: Publication,
    encoding: int,
    shape: EncodingShape,
    rate: "Rate | None",
    counts: Mapping[int, tuple[int, int]],
) -> list[Option]:
    """Return the ways to send one encoding: of its layers those that flow, else the whole."""
    if rate is None or not rate.told_bps:
        return [Option(encoding, bps=announced_bps(publication, encoding, shape), height=shape.height)]
    spatials, temporals = counts.get(encoding, (1, 1))
    made = []
    for (spatial, temporal), layer in rate.layers.items():
        if layer.told_bps and spatial < spatials and temporal < temporals:
            made.append(
                Option(
                    encoding,
                    ALL if spatial == spatials - 1 else spatial,
                    ALL if temporal == temporals - 1 else temporal,
                    layer.told_bps,
                    layer.height or shape.height >> (spatials - 1 - spatial),
                    layer.told_fps,
                )
            )
    return made or [Option(encoding, bps=rate.told_bps, height=shape.height, fps=rate.told_fps)]

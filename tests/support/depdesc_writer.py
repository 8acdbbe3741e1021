"""Writes Dependency Descriptors (AV1 RTP specification, appendix A.8.3) from plain values: the reader's oracle."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Template:
    spatial_id: int = 0
    temporal_id: int = 0
    dtis: Sequence[int] = (2,)
    fdiffs: Sequence[int] = ()
    chains: Sequence[int] = ()


@dataclass
class Structure:
    templates: Sequence[Template]
    template_id_offset: int = 0
    protected_by: Sequence[int] = ()
    resolutions: Sequence[tuple[int, int]] = ()

    @property
    def targets(self) -> int:
        return len(self.templates[0].dtis)

    @property
    def chains(self) -> int:
        return len(self.templates[0].chains)


@dataclass
class Descriptor:
    template_id: int = 0
    frame_number: int = 0
    start: bool = True
    end: bool = True
    structure: Structure | None = None
    active_targets: int | None = None
    targets: int = 0                      # of the structure in force, where `active_targets` needs it
    dtis: Sequence[int] | None = None
    fdiffs: Sequence[int] | None = None
    chains: Sequence[int] | None = None


@dataclass
class _Bits:
    text: list[str] = field(default_factory=list)

    def put(self, value: int, count: int) -> None:
        assert 0 <= value < 1 << count or count == 0 == value
        self.text.append(format(value, f"0{count}b") if count else "")

    def put_below(self, value: int, bound: int) -> None:
        width = bound.bit_length()
        short = (1 << width) - bound
        if value < short:
            self.put(value, width - 1)
        else:
            self.put(value + short, width)

    def to_bytes(self) -> bytes:
        text = "".join(self.text)
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def _structure(bits: _Bits, s: Structure) -> None:
    bits.put(s.template_id_offset, 6)
    bits.put(s.targets - 1, 5)
    for template, after in zip(s.templates, [*s.templates[1:], None], strict=True):
        if after is None:
            bits.put(3, 2)
        elif (after.spatial_id, after.temporal_id) == (template.spatial_id, template.temporal_id):
            bits.put(0, 2)
        elif after.spatial_id == template.spatial_id:
            assert after.temporal_id == template.temporal_id + 1
            bits.put(1, 2)
        else:
            assert (after.spatial_id, after.temporal_id) == (template.spatial_id + 1, 0)
            bits.put(2, 2)
    for template in s.templates:
        for dti in template.dtis:
            bits.put(dti, 2)
    for template in s.templates:
        for fdiff in template.fdiffs:
            bits.put(1, 1)
            bits.put(fdiff - 1, 4)
        bits.put(0, 1)
    bits.put_below(s.chains, s.targets + 1)
    if s.chains:
        for chain in s.protected_by:
            bits.put_below(chain, s.chains)
        for template in s.templates:
            for fdiff in template.chains:
                bits.put(fdiff, 4)
    bits.put(bool(s.resolutions), 1)
    for width, height in s.resolutions:
        bits.put(width - 1, 16)
        bits.put(height - 1, 16)


def write_depdesc(d: Descriptor) -> bytes:
    """Return the descriptor's bytes; the shortest form, so 3 bytes when nothing is custom."""
    bits = _Bits()
    bits.put(d.start, 1)
    bits.put(d.end, 1)
    bits.put(d.template_id, 6)
    bits.put(d.frame_number, 16)
    flags = [d.structure, d.active_targets, d.dtis, d.fdiffs, d.chains]
    if all(f is None for f in flags):
        return bits.to_bytes()
    for f in flags:
        bits.put(f is not None, 1)
    if d.structure is not None:
        _structure(bits, d.structure)
    if d.active_targets is not None:
        bits.put(d.active_targets, d.structure.targets if d.structure else d.targets)
    for dti in d.dtis or ():
        bits.put(dti, 2)
    if d.fdiffs is not None:
        for fdiff in d.fdiffs:
            nibbles = (max((fdiff - 1).bit_length(), 1) + 3) // 4
            bits.put(nibbles, 2)
            bits.put(fdiff - 1, 4 * nibbles)
        bits.put(0, 2)
    for fdiff in d.chains or ():
        bits.put(fdiff, 8)
    return bits.to_bytes()

"""Error codes: the names follow the enum, every code becomes one kind of exception."""

import re
from pathlib import Path

import pytest

from relaycore import errs

PXD = Path(errs.__file__).parent / "errs.pxd"
if not PXD.exists():
    # The twins' modules lie apart from the sources.
    PXD = Path(__file__).parents[3] / "ext" / "relaycore" / "errs.pxd"


def test_names_and_numbers_are_those_of_the_enum():
    declared = {
        name: int(number) for name, number in re.findall(r"^    (E_\w+) = (-?\d+)", PXD.read_text(), re.MULTILINE)
    }
    last = declared.pop("E_LAST")
    assert errs.NAMES == declared
    assert last == min(declared.values()) - 1


@pytest.mark.parametrize("code", [0, 1, 65535])
def test_success_is_returned(code):
    assert errs.raise_for(code) == code


@pytest.mark.parametrize("name", [name for name in errs.NAMES if name != "E_OK"])
def test_every_code_raises_what_it_means(name):
    code = errs.NAMES[name]
    expected = {"E_MEMORY": MemoryError, "E_OS": OSError, "E_INDEX_REUSED": RuntimeError}.get(name, errs.WireError)
    with pytest.raises(expected, match=name):
        errs.raise_for(code)


def test_a_wire_error_is_a_value_error_with_its_code():
    with pytest.raises(ValueError) as caught:
        errs.raise_for(errs.NAMES["E_AUTH"])
    assert caught.value.code == -7


@pytest.mark.parametrize("code", [-22, -1000])
def test_a_number_nobody_gave_out_is_our_bug(code):
    assert errs.name_of(code) == "E_UNKNOWN"
    with pytest.raises(RuntimeError):
        errs.raise_for(code)

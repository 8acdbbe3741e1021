"""docs/security.md claims only what a test that exists shows."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")


def named() -> set[str]:
    return set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))


def test_every_test_it_names_exists():
    assert len(named()) > 8
    assert [name for name in sorted(named()) if not (ROOT / name).is_file()] == []


def test_every_claim_in_its_table_names_a_test():
    table = PAGE.partition("| claim | check |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) > 5
    assert [row for row in table if not re.search(r"`tests/[\w/]+\.py`", row)] == []


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([\w-]+)`", PAGE))
    assert targets and [name for name in targets if f"\n{name}:" not in makefile] == []

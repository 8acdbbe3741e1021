"""Every fuzz target stands its corpus and a short run of mutations; the runner notices planted bugs.

VEIL_FUZZ_S is the time of all targets together; without it each has half a second.
"""

import os
import random
from pathlib import Path

import pytest

from tests.fuzz import run

TARGETS = run.discover()
SECONDS = float(os.environ["VEIL_FUZZ_S"]) / len(TARGETS) if "VEIL_FUZZ_S" in os.environ else 0.5
SEED = int(os.environ.get("VEIL_SEED", "1"))
PLANTED = {target.name: target for target in run.discover([run.HERE / "planted.py"])}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target_stands_corpus_and_mutations(target: run.Target) -> None:
    assert target.seeds, "a target without seeds does not get past the first check of its parser"
    result = run.run_target(target, SECONDS, SEED)
    assert result.failure is None, f"{result.failure.kind}, input in {result.failure.path}\n{result.failure.detail}"
    assert result.executions > len(target.seeds)


@pytest.mark.parametrize("kind", ["death", "exception", "hang"])
def test_a_planted_bug_is_found_and_its_input_kept(kind: str, tmp_path: Path) -> None:
    result = run.run_target(PLANTED[f"planted_{kind}"], 60, crashes=tmp_path, hang_s=1)
    assert result.failure is not None
    assert result.failure.kind == kind
    assert result.failure.path.parent == tmp_path
    data = result.failure.path.read_bytes()
    assert data[:5] == b"VEIL\xff"
    if kind == "exception":
        assert "KeyError: 'planted'" in result.failure.detail


def test_refusing_bytes_is_no_failure(tmp_path: Path) -> None:
    result = run.run_target(PLANTED["planted_refusal"], 0.5, crashes=tmp_path)
    assert result.failure is None
    assert result.executions > 1000
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_mutates_the_same_way() -> None:
    pool = [bytes(range(50)), b"VEIL"]
    rows = []
    for seed in (1, 1, 2):
        generator = random.Random(seed)
        rows.append([run.mutate(pool, generator) for _ in range(200)])
    assert rows[0] == rows[1] != rows[2]
    assert len(set(rows[0])) > 150
    assert all(len(data) <= run.MAX_INPUT_BYTES for data in rows[0])

"""Fuzzing without a framework: replay the kept corpus, then mutate it, one child process for each target.

A target is a function `fuzz_<name>(data: bytes)` in a file `targets_*.py` beside this one. It passes by returning or by raising
a ValueError (that is how parsers refuse bytes); any other exception, the death of its process and a call that does not return are
failures, and the input is saved in crashes/. Seeds are the files in corpus/<name>/ and what `seeds_<name>()` returns.

A mutated input is kept for further mutation when its outcome was not seen before: what the target returned (anything hashable,
say how many packets it found) or the text of its ValueError. This stands in for coverage, which compiled modules do not give.

    python tests/fuzz/run.py --seconds 60                      every target for a minute each
    python tests/fuzz/run.py --target stun --seed 7            one target with other mutations
    python tests/fuzz/run.py --target stun --input FILE        one input, in this process (for a debugger)
"""

import argparse
import hashlib
import importlib.util
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORPUS = HERE / "corpus"
CRASHES = HERE / "crashes"

MAX_INPUT_BYTES = 65536
"""One UDP payload, and more than any message of the control plane that is parsed before its length is checked."""
POOL_LIMIT = 512
HANG_S = 10.0
"""No parser takes a thousandth of this; the rest is for a busy machine."""
EXIT_FAILED = 3

INTERESTING = {
    1: (0x00, 0x01, 0x0F, 0x10, 0x7F, 0x80, 0x81, 0xBE, 0xC0, 0xFE, 0xFF),
    2: (0x0000, 0x0001, 0x00FF, 0x0100, 0x1000, 0x7FFF, 0x8000, 0xBEDE, 0xFFFE, 0xFFFF),
    4: (0x00000000, 0x00000001, 0x0000FFFF, 0x00010000, 0x2112A442, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
}


@dataclass(frozen=True)
class Target:
    name: str
    file: Path
    run: Callable[[bytes], Hashable]
    seeds: tuple[bytes, ...]


@dataclass(frozen=True)
class Failure:
    kind: str
    """"exception", "death" or "hang"."""
    detail: str
    path: Path
    """Where the input was saved."""


@dataclass(frozen=True)
class Result:
    target: str
    executions: int
    failure: Failure | None


# --- targets --------------------------------------------------------------------------------------------------------


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fuzz_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def discover(files: Iterable[Path] | None = None) -> list[Target]:
    """Find the targets of the given files, by default of all targets_*.py here, sorted by name."""
    found: dict[str, Target] = {}
    for file in sorted(HERE.glob("targets_*.py")) if files is None else files:
        module = _load(file)
        for name, function in vars(module).items():
            if not name.startswith("fuzz_") or not callable(function):
                continue
            short = name.removeprefix("fuzz_")
            if short in found:
                raise RuntimeError(f"{file.name} and {found[short].file.name} both have a target {short}")
            seeds = [path.read_bytes() for path in sorted((CORPUS / short).glob("*")) if path.is_file()]
            seeds += getattr(module, f"seeds_{short}", tuple)()
            found[short] = Target(short, file, function, tuple(seeds))
    return [found[name] for name in sorted(found)]


# --- mutation -------------------------------------------------------------------------------------------------------


def _flip(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _truncate(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _delete(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 2, 4, 8, 20))]


def _insert(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 3, 4, 8, 64)))


def _repeat(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    part = data[at : at + rng.randrange(1, 33)]
    data[at:at] = part * rng.choice((1, 1, 2, 16))


def _splice(data: bytearray, rng: random.Random, pool: Sequence[bytes]) -> None:
    other = rng.choice(pool)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


def _put_interesting(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    width = rng.choice((1, 2, 4))
    if len(data) >= width:
        at = rng.randrange(len(data) - width + 1)
        data[at : at + width] = rng.choice(INTERESTING[width]).to_bytes(width, "big")


def _nudge(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    width = rng.choice((1, 2, 4))
    if len(data) >= width:
        at = rng.randrange(len(data) - width + 1)
        value = int.from_bytes(data[at : at + width], "big") + rng.choice((-16, -4, -1, 1, 4, 16))
        data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "big")


MUTATIONS = (_flip, _set, _truncate, _delete, _insert, _repeat, _splice, _put_interesting, _put_interesting, _nudge)


def mutate(pool: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a mutation of some input of the pool, at most MAX_INPUT_BYTES long."""
    data = bytearray(rng.choice(pool))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(MUTATIONS)(data, rng, pool)
    return bytes(data[:MAX_INPUT_BYTES])


# --- the child ------------------------------------------------------------------------------------------------------


class Record:
    """A file shared by parent and child: how many calls began, and the input of the last. It outlives the child's death."""

    HEAD = struct.Struct("=QI")

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(self.HEAD.size + MAX_INPUT_BYTES)
            self._map = mmap.mmap(file.fileno(), self.HEAD.size + MAX_INPUT_BYTES)

    def begin(self, executions: int, data: bytes) -> None:
        self._map[self.HEAD.size : self.HEAD.size + len(data)] = data
        self.HEAD.pack_into(self._map, 0, executions, len(data))

    @property
    def executions(self) -> int:
        return int(self.HEAD.unpack_from(self._map)[0])

    @property
    def data(self) -> bytes:
        length = self.HEAD.unpack_from(self._map)[1]
        return self._map[self.HEAD.size : self.HEAD.size + length]


def outcome_of(target: Target, data: bytes) -> Hashable:
    """Call the target once; a ValueError is an outcome, anything else it raises is a failure and goes up."""
    try:
        return target.run(data)
    except ValueError as refusal:
        return (type(refusal).__name__, str(refusal)[:80])


def run_child(target: Target, seconds: float, seed: int, record: Record) -> int:
    """Replay, then mutate until the time is over; return EXIT_FAILED on the first unexpected exception."""
    rng = random.Random(f"{seed}:{target.name}")
    pool = [data[:MAX_INPUT_BYTES] for data in target.seeds] or [b""]
    fixed = len(pool)
    seen: set[Hashable] = set()
    deadline = time.monotonic() + seconds
    executions = 0
    while executions < fixed or time.monotonic() < deadline:
        data = pool[executions] if executions < fixed else mutate(pool, rng)
        executions += 1
        record.begin(executions, data)
        try:
            outcome = outcome_of(target, data)
        except BaseException:
            traceback.print_exc()
            return EXIT_FAILED
        if outcome in seen or executions <= fixed:
            seen.add(outcome)
            continue
        if len(seen) < 65536:
            seen.add(outcome)
        if len(pool) < POOL_LIMIT:
            pool.append(data)
        elif fixed < POOL_LIMIT:
            # The seeds stay; the finds make place for each other.
            pool[rng.randrange(fixed, POOL_LIMIT)] = data
    return 0


# --- the parent -----------------------------------------------------------------------------------------------------


def _save(target: Target, data: bytes, crashes: Path) -> Path:
    crashes.mkdir(parents=True, exist_ok=True)
    path = crashes / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    return path


def _wait(child: subprocess.Popen[bytes], record: Record, hang_s: float) -> bool:
    """Wait for the child's end; return False when it made no progress for hang_s and was killed."""
    last, since = -1, time.monotonic()
    while True:
        try:
            child.wait(timeout=0.2)
            return True
        except subprocess.TimeoutExpired:
            pass
        if record.executions != last:
            last, since = record.executions, time.monotonic()
        # Before the first call the child is still importing, which takes as long as it takes.
        elif last > 0 and time.monotonic() - since > hang_s:
            child.kill()
            child.wait()
            return False


def run_target(
    target: Target, seconds: float, seed: int = 1, *, crashes: Path = CRASHES, hang_s: float = HANG_S
) -> Result:
    """Fuzz one target in a child process and save the input of its first failure."""
    paths = dict.fromkeys([*(path for path in sys.path if path), str(ROOT), str(ROOT / "ext")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": "1"}
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "record"
        shared.touch()
        record = Record(shared)
        command = [
            sys.executable,
            __file__,
            "--child",
            str(shared),
            "--file",
            str(target.file),
            "--target",
            target.name,
        ]
        command += ["--seconds", str(seconds), "--seed", str(seed)]
        with (Path(folder) / "stderr").open("w+b") as stderr:
            child = subprocess.Popen(command, env=environment, stderr=stderr, stdin=subprocess.DEVNULL)
            try:
                ended = _wait(child, record, hang_s)
            finally:
                child.kill()
                child.wait()
            stderr.seek(0)
            detail = stderr.read().decode(errors="replace")
        if ended and child.returncode == 0:
            return Result(target.name, record.executions, None)
        if record.executions == 0:
            raise RuntimeError(f"the child for {target.name} did not start:\n{detail}")
        kind = "hang" if not ended else "exception" if child.returncode == EXIT_FAILED else "death"
        if kind != "exception":
            detail = f"return code {child.returncode}\n{detail}"
        return Result(target.name, record.executions, Failure(kind, detail, _save(target, record.data, crashes)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target, after its corpus was replayed")
    parser.add_argument("--target", help="name of one target (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="run the target on this file, in this process")
    parser.add_argument(
        "--file", type=Path, action="append", help="look for targets in this file (default: targets_*.py)"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for path in (str(ROOT), str(ROOT / "ext")):
        if path not in sys.path:
            sys.path.append(path)
    targets = [target for target in discover(options.file) if options.target in (None, target.name)]
    if not targets:
        parser.error(f"there is no target {options.target or 'here'}")
    if options.child is not None:
        return run_child(targets[0], options.seconds, options.seed, Record(options.child))
    if options.input is not None:
        if options.target is None:
            parser.error("--input goes with --target")
        print(repr(outcome_of(targets[0], options.input.read_bytes())))
        return 0
    failed = False
    for target in targets:
        result = run_target(target, options.seconds, options.seed)
        if result.failure is None:
            print(f"{result.target}: {result.executions} inputs, nothing found")
        else:
            failed = True
            print(
                f"{result.target}: {result.failure.kind} after {result.executions} inputs, saved as {result.failure.path}"
            )
            print(result.failure.detail)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

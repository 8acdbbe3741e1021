"""The garbage runs with a table for people: `python -m tests.adversary.run [--seconds 10] [--rounds 2]`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from rich.console import Console
from rich.table import Table

from tests.adversary import scene
from tests.adversary.account import wrong_counts
from tests.adversary.test_garbage import HONEST, LESS_FRAMES, TOLERANCE, frames_ratio
from tests.support.relay_process import relay_process


async def run(seconds: float, pairs: int) -> bool:
    """Run sink and relay in turn (ABBA), print what was seen, and return whether it holds."""
    console = Console(width=max(110, Console().width))
    rounds: list[scene.Round] = []
    async with (
        relay_process(environ={"VEIL_LOG_LEVEL": "info"}) as relay,
        scene.call(relay) as call,
        scene.sink() as sink,
    ):
        await scene.storm(relay, call, seconds=2, scale=0.5)
        for pair in range(pairs):
            for ports in (sink, None) if pair % 2 == 0 else (None, sink):
                rounds.append(await scene.storm(relay, call, seconds=seconds, sink_ports=ports))
                console.print(rounds[-1].line())
        is_alive = relay.process.returncode is None and await call.is_connected()
    storms = [one for one in rounds if one.towards == "relay"]
    table = Table("counted under", "sent", "counted", "")
    wrong = 0
    for name in sorted(storms[0].expected):
        sent, counted = (sum(one.expected[name] for one in storms), sum(one.grown[name] for one in storms))
        is_right = abs(counted - sent) <= TOLERANCE * sent
        wrong += not is_right
        table.add_row(name, f"{sent:,}", f"{counted:,}", "" if is_right else "WRONG")
    console.print(table)
    others = [line for one in storms for line in wrong_counts(one.expected, one.grown, tolerance=1e9, others=HONEST)]
    for line in others:
        console.print(f"not expected: {line}")
    ratio = frames_ratio(rounds)
    console.print(
        f"frames decoded under garbage per frame in the control runs: {ratio:.3f} (at least {1 - LESS_FRAMES}); "
        f"the relay and the call are {'alive' if is_alive else 'NOT alive'}"
    )
    return is_alive and not wrong and not others and ratio >= 1 - LESS_FRAMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of a sink's and a relay's round")
    given = parser.parse_args()
    sys.exit(0 if asyncio.run(run(given.seconds, given.rounds)) else 1)


if __name__ == "__main__":
    main()

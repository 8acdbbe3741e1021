"""`make interop`: every client against every other, and a table of what came of it.

usage: python -m tests.interop.run [NAME...] [--pairs-only | --together-only]      names as in clients/cast.py
"""

import argparse
import asyncio
import itertools
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.interop.clients.cast import CAST, cast
from tests.interop.matrix import Check, Leg, encodings, everybody, pair
from tests.support.relay_process import relay_process

console = Console(width=150 if not sys.stdout.isatty() else None)


async def run(names: list[str], *, pairs: bool, together: bool) -> bool:
    """Run the scenarios, print the tables; return whether all passed."""
    legs: list[Leg] = []
    checks: list[Check] = []
    begun = time.monotonic()
    async with relay_process() as relay, cast(names) as clients:
        if pairs:
            for one, two in itertools.combinations(clients, 2):
                found = await pair(relay, clients[one], clients[two])
                for leg in found:
                    mark = "ok  " if leg.passed else "FAIL"
                    print(f"{mark} {leg.publisher} to {leg.subscriber}: {leg}", flush=True)
                legs += found
        if together:
            checks += await everybody(relay, list(clients.values()))
            others = [client for name, client in clients.items() if name != "chromium-new" and client.chooses_size]
            if "chromium-new" in clients and others:
                checks += await encodings(relay, clients["chromium-new"], others[0])
            for check in checks:
                print(f"{'ok  ' if check.passed else 'FAIL'} {check.what}: {check.figure}", flush=True)
        titles = [client.name for client in clients.values()]
    if legs:
        console.print(leg_table(titles, legs))
    passed = all(leg.passed for leg in legs) and all(check.passed for check in checks)
    total, good = len(legs) + len(checks), sum(x.passed for x in [*legs, *checks])
    print(f"{good} of {total} passed in {time.monotonic() - begun:.0f} s")
    return passed and total > 0


def leg_table(titles: list[str], legs: list[Leg]) -> Table:
    """Return publishers down, subscribers across: share of frames decoded, width, share of audio packets, data."""
    table = Table(
        title="Published by (row), received by (column): frames decoded of those sent, width, audio packets, data"
    )
    table.add_column("")
    for title in titles:
        table.add_column(title)
    by_pair = {(leg.publisher, leg.subscriber): leg for leg in legs}
    for publisher in titles:
        cells = []
        for subscriber in titles:
            leg = by_pair.get((publisher, subscriber))
            if leg is None:
                cells.append("")
            elif leg.passed:
                cells.append(f"[green]{leg.decoded:.0%} {leg.width}w {leg.audio:.0%} d[/]")
            else:
                cells.append(f"[red]{leg.problem[:60]}[/]")
        table.add_row(publisher, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="every client against every other")
    parser.add_argument("names", nargs="*", default=list(CAST), metavar="NAME", help=f"of {', '.join(CAST)}")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--pairs-only", action="store_true")
    only.add_argument("--together-only", action="store_true")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in CAST]:
        parser.error(f"no client {unknown[0]}; there are {', '.join(CAST)}")
    passed = asyncio.run(run(options.names, pairs=not options.together_only, together=not options.pairs_only))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()

"""`make conformance`: the oracle over a million generated packets, with everything at once that a network and its users do.

Loss, reordering and duplicates on both paths, padding, repair, numbers that begin near their wrap, switches, pauses, and
streams that cross the rings between one, two or three workers; a new simulation, hence a new seed, for every half minute.
`--layers`: as many packets of each kind of tests/sim/layered.py instead, through so many switches of encodings and layers.

usage: python -m tests.sim.conformance [--packets 1000000] [--seed 1] [--layers [--switches 1000]]
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.sim.layered import KINDS, NETWORKS, Scenario
from tests.sim.layered import run as run_layers
from tests.sim.link import Impairment
from tests.sim.repair import RepairSimulation

SECONDS, STEPS = 30.0, 15


def one(seed: int) -> tuple[int, int, list[str]]:
    """Run one simulation; return the packets generated, those judged, and what was wrong."""
    rng = random.Random(seed)
    up = Impairment(loss=rng.choice((0, 0.02, 0.1)), duplicate=rng.choice((0, 0.02)), reorder=rng.choice((0, 0.1)))
    down = Impairment(loss=rng.choice((0, 0.05)), reorder=rng.choice((0, 0.05)))
    simulation = RepairSimulation(
        seed, subscribers=4, workers=rng.choice((1, 2, 3)), upstream=up, downstream=down, padding_share=rng.choice((0, 0.2)),
        profile=rng.choice((0x0001, 0x0007, 0x0008)), start_seq=rng.choice((None, 0, 32_767, 65_000, 65_535)),
    )  # fmt: skip
    for _ in range(STEPS):
        simulation.run(SECONDS / STEPS)
        for subscriber in simulation.subscribers:
            simulation.select(subscriber, rng.choice((0, 1, 2, 2, None)))
    found = []
    judged = 0
    for subscriber in simulation.subscribers:
        judged += len(subscriber.oracle.packets)
        found += [f"seed {seed}, {subscriber.ssrc:#x}: {what}" for what in subscriber.oracle.violations(lost_at_source=1 << 30)]
        if subscriber.peer.refused:
            found.append(f"seed {seed}, {subscriber.ssrc:#x}: {subscriber.peer.refused} packets refused by SRTP")
    return sum(encoding.packets for encoding in simulation.publisher.encodings), judged, found


def layers(packets: int, switches: int, seed: int) -> int:
    """Judge so many packets of every kind, at least so many switches of each; return how many violations there were."""
    wrong = 0
    for codec, name, uses_dd, encodings, has_dd in KINDS:
        began_s, generated, judged, done = time.monotonic(), 0, 0, 0
        while generated < packets or done < switches:
            loss, disorder = NETWORKS[done // 100 % len(NETWORKS)]
            scenario = Scenario(codec, name, uses_dd, encodings, loss, disorder, has_dd=has_dd, start_seq=65_000 + done // 100 % 500)
            call = run_layers(seed + done, scenario, 100)
            generated, judged, done = generated + call.generated, judged + len(call.got), done + 100
            for what in (found := call.violations()):
                print(f"seed {seed + done - 100}, {scenario}: {what}")
            wrong += len(found)
        described = f"{codec} {name} x{encodings}, {'with' if uses_dd else 'without'} a Dependency Descriptor"
        if has_dd != uses_dd and uses_dd:
            described += " that the subscriber has not"
        took_s = time.monotonic() - began_s
        print(f"{described}: {generated:,} packets, {judged:,} judged, {done:,} switches, {took_s:.0f} s", flush=True)
    print(f"{wrong} violations")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description="the oracle over many packets")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--switches", type=int, default=1_000)
    options = parser.parse_args()
    if options.layers:
        sys.exit(1 if layers(options.packets, options.switches, options.seed) else 0)
    began_s, generated, judged, runs, wrong = time.monotonic(), 0, 0, 0, 0
    while generated < options.packets:
        packets, seen, found = one(options.seed + runs)
        generated, judged, runs, wrong = generated + packets, judged + seen, runs + 1, wrong + len(found)
        for what in found:
            print(what)
        print(f"{generated:,} packets", end="\r", flush=True)
    print(f"{generated:,} packets generated in {runs} simulations, {judged:,} judged at subscribers, {wrong} violations, "
          f"{time.monotonic() - began_s:.0f} s")  # fmt: skip
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

"""`python -m loadtests`: load on any server that speaks the LiveKit protocol. See README.md beside this file."""

import contextlib
import json
import shlex
from typing import Annotated

import typer
import uvloop

from loadtests import calls, joins
from loadtests.server import Server, own_relay

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Url = Annotated[str, typer.Option(help="ws://… of the server. Empty: start a relay of this tree on loopback.")]
Key = Annotated[str, typer.Option(envvar="LIVEKIT_API_KEY", help="API key that tokens are made with.")]
Secret = Annotated[str, typer.Option(envvar="LIVEKIT_API_SECRET", help="Its secret.")]
Pid = Annotated[int, typer.Option(help="Process whose processor time is counted; 0: the relay started here, or none.")]
Wrapper = Annotated[str, typer.Option(help="Command before the relay started here, such as a profiler.")]


@contextlib.asynccontextmanager
async def _server(url: str, key: str, secret: str, pid: int, wrapper: str):
    if url:
        yield Server(url, key, secret, pid)
        return
    async with own_relay(wrapper=shlex.split(wrapper)) as server:
        yield server


@app.command("joins")
def joins_command(
    url: Url = "",
    key: Key = "",
    secret: Secret = "",
    pid: Pid = 0,
    wrapper: Wrapper = "",
    rate: Annotated[float, typer.Option(help="Joins begun per second.")] = 20.0,
    seconds: Annotated[float, typer.Option(help="How long to begin joins.")] = 20.0,
    stay: Annotated[float, typer.Option(help="Seconds a complete room stays.")] = 0.5,
    data: Annotated[bool, typer.Option(help="Data channels too.")] = True,
    video: Annotated[bool, typer.Option(help="A camera too.")] = False,
    seed: int = 1,
) -> None:
    """Rooms of two, one after another: processor milliseconds per complete join, join times, failures."""

    async def main() -> joins.Outcome:
        async with _server(url, key, secret, pid, wrapper) as server:
            plan = joins.Plan(joins_per_s=rate, seconds=seconds, stay_s=stay, data=data, video=video, seed=seed)
            return await joins.run(server, plan)

    outcome = uvloop.run(main())
    typer.echo(json.dumps(outcome.report(), indent=2))
    if outcome.failures or not outcome.complete:
        raise typer.Exit(1)


@app.command("call")
def call_command(
    url: Url = "",
    key: Key = "",
    secret: Secret = "",
    pid: Pid = 0,
    wrapper: Wrapper = "",
    room: str = "load",
    publishers: Annotated[int, typer.Option(help="Bots that speak.")] = 1,
    subscribers: Annotated[int, typer.Option(help="Bots that only listen.")] = 10,
    video: Annotated[bool, typer.Option(help="Publishers send a camera of three layers too.")] = False,
    seconds: Annotated[float, typer.Option(help="How long to measure once everybody is in.")] = 20.0,
    drain: Annotated[str, typer.Option(help="lazy for cost, eager for delay.")] = "eager",
    seed: int = 1,
) -> None:
    """One room that stays: every frame checked, loss, delay, processor time per forwarded packet."""

    async def main() -> dict[str, object]:
        async with _server(url, key, secret, pid, wrapper) as server:
            plan = calls.Plan(room=room, publishers=publishers, subscribers=subscribers, video=video, seconds=seconds,
                              drain=drain, seed=seed)  # fmt: skip
            return await calls.run(server, plan)

    report = uvloop.run(main())
    typer.echo(json.dumps(report, indent=2))
    if not report["is_clean"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()

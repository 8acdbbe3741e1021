"""Health, readiness and metrics over real HTTP."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession, web
from prometheus_client.parser import text_string_to_metric_families

from relay.errors import VeilError
from relay.observe import Totals, Watched, routes
from relay.plane import WorkerFigures


@dataclass
class Copy:
    """What the plane's snapshot shows; the real one is read in tests of relay.plane."""

    transports: list[int] = field(default_factory=lambda: [1, 2])
    counters: dict[str, int] = field(default_factory=lambda: {"rtp_received": 7})
    errors: dict[str, int] = field(default_factory=lambda: {"E_AUTH": 3})
    workers: tuple[WorkerFigures, ...] = (WorkerFigures(1, 5, 4, 40, 0.25), WorkerFigures(1, 6, 3, 30, 0.5))
    stages: dict[str, tuple[float, int]] = field(default_factory=lambda: {"send": (900.0, 3), "route": (0.0, 0)})


async def snapshot() -> Copy:
    return Copy()


async def stuck() -> Copy:
    await asyncio.sleep(3600)
    return Copy()


async def refused() -> Copy:
    raise VeilError("the worker has stopped")


type_get = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def get() -> type_get:
    """A function that asks a server made for the given relay."""
    runners = []

    async def ask(path: str, headers: dict[str, str] | None = None, **watched) -> tuple[int, str]:
        options = {"unready": lambda: None, "snapshot": snapshot, "totals": lambda: Totals(1, 2, 3, 4), **watched}
        app = web.Application()
        app.add_routes(routes(Watched(**options)))
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
            return answer.status, await answer.text()

    yield ask
    for runner in runners:
        await runner.cleanup()


async def test_health_says_that_the_loop_answers(get: type_get) -> None:
    assert await get("/healthz", snapshot=stuck, unready=lambda: "draining") == (200, "ok\n")


async def test_readiness_says_why_not(get: type_get) -> None:
    assert await get("/readyz") == (200, "ready\n")
    assert await get("/readyz", unready=lambda: "draining") == (503, "draining\n")
    assert await get("/readyz", snapshot=stuck) == (503, "the data plane does not answer\n")
    assert await get("/readyz", snapshot=refused) == (503, "the data plane refuses: the worker has stopped\n")


async def test_metrics_are_what_the_relay_counts(get: type_get) -> None:
    status, text = await get("/metrics", refusals={"bad_token": 5}, lost_records=lambda: 6)
    assert status == 200
    samples = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples[("veil_participants",)] == 2
    assert samples[("veil_transports",)] == 2
    assert samples[("veil_plane_rtp_received_total",)] == 7
    assert samples[("veil_plane_dropped_total", "auth")] == 3
    assert samples[("veil_worker_rtp_forwarded_total", "1")] == 30
    assert samples[("veil_worker_predicted_load", "0")] == 0.25
    assert samples[("veil_stage_ns_per_packet", "send")] == 300
    assert samples[("veil_stage_ns_per_packet", "route")] == 0
    assert samples[("veil_refused_total", "bad_token")] == 5
    assert samples[("veil_log_records_lost_total",)] == 6
    assert samples[("process_open_fds",)] > 0
    assert (await get("/metrics", snapshot=stuck))[0] == 503


async def test_metrics_are_nobody_elses_business(get: type_get) -> None:
    assert (await get("/metrics", {"X-Forwarded-For": "198.51.100.7"}))[0] == 403
    assert (await get("/metrics", metrics_token="t"))[0] == 403
    assert (await get("/metrics", {"Authorization": "Bearer x"}, metrics_token="t"))[0] == 403
    forwarded = {"Authorization": "Bearer t", "X-Forwarded-For": "198.51.100.7"}
    assert (await get("/metrics", forwarded, metrics_token="t"))[0] == 200

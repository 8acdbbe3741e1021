"""A short run of `make resume`: the Python SDK keeps its session, its picture and every message over broken connections.

Its control is a relay without resume: there the session is another one after the first cut.
"""

import pytest

from tests.interop.clients.base import Seen
from tests.interop.clients.cast import cast
from tests.interop.resume import cut, judge_numbers, numbers
from tests.support.relay_process import relay_process

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(60)]

# The relay as it is, but that it knows no session that anybody asks for.
FORGETFUL = """
from relay.signaling.conference import Conference
Conference.find_own = lambda *_: None
from relay.cli import main
main()
"""


def of(name: str):
    """A participant of this kind, and its partner of the same."""
    return cast([name])


async def test_over_a_cut_nothing_is_lost_and_nobody_sees_a_thing():
    async with of("python-new") as one, of("python-new") as other, relay_process() as relay:
        checks = await cut(*one.values(), *other.values(), relay, count=60, cuts=1, between_s=1.0)
        assert relay.log_text().count("signalling resumed") == 1
    assert all(check.passed for check in checks), checks


@pytest.mark.long
async def test_control_where_no_session_is_known_it_is_another_one():
    async with (
        of("python-new") as one,
        of("python-new") as other,
        relay_process(command=("-c", FORGETFUL, "serve", "--dev")) as relay,
    ):
        checks = await cut(*one.values(), *other.values(), relay, count=50, cuts=1, between_s=1.0, arrive_s=1.0)
    assert not checks[0].passed


def test_what_is_missing_doubled_or_out_of_order_is_seen():
    seen = [Seen(0, "data", "a", text) for text in ("r:0", "n:0", "n:1", "n:x", "n:2 ")] + [Seen(0, "joined", "a", "n:2")]
    assert numbers(seen, "n:") == [0, 1]
    for got, verdict in (([0, 1, 2], True), ([0, 2], False), ([0, 1, 1, 2], False), ([0, 2, 1], False), ([], False)):
        assert judge_numbers(got, 3)[1] is verdict

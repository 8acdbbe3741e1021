"""People whose network lets no UDP through: Chromium, told of no UDP address, comes up over the relay's ICE-TCP port."""

import time

import pytest

from tests.support.relay_process import relay_process
from tests.support.web_guest import guest

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(120)]

# ICE-lite sends no checks of its own, so an address that the page does not know is one that cannot be reached.
NO_UDP = """{
  const Connection = window.RTCPeerConnection;
  window.connections = [];
  window.RTCPeerConnection = class extends Connection {
    constructor(options) { super(options); connections.push(this); }
    setRemoteDescription(description) {
      const sdp = description.sdp.replace(/^a=candidate:\\S+ 1 udp .*\\r\\n/gm, "");
      return super.setRemoteDescription({type: description.type, sdp});
    }
  };
}"""
PROTOCOLS = """async () => {
  const found = [];
  for (const connection of connections) {
    const report = await connection.getStats();
    report.forEach((s) => {
      if (s.type === "candidate-pair" && s.nominated && s.state === "succeeded") found.push(report.get(s.remoteCandidateId).protocol);
    });
  }
  return found;
}"""
GOAL_S = 5.0


async def test_a_call_comes_up_over_tcp_where_udp_is_blocked() -> None:
    async with (
        relay_process() as relay,
        guest(relay.origin, "Ada", room="r", script=NO_UDP) as ada,
        guest(relay.origin, "Bo", room="r", script=NO_UDP) as bo,
    ):
        await ada.join()
        began = time.monotonic()
        await bo.join()
        await ada.sees("Bo")
        await bo.sees("Ada")
        took = time.monotonic() - began
        assert set(await ada.chromium.evaluate(PROTOCOLS)) == {"tcp"} == set(await bo.chromium.evaluate(PROTOCOLS))
        assert took < GOAL_S, f"{took:.1f} s"

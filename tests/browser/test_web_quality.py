"""The page's account of its connection: rates, what is seen and why, what is sent; from the browser and from the relay."""

import re

import pytest

from tests.support.relay_process import relay_process
from tests.support.web_guest import guest, until

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(120)]

# Lines of the graph: every colour that is drawn but its ground and its grid.
COLOURS = """() => {
  const canvas = document.querySelector("#quality-graph");
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) found.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
  return [...found];
}"""
GLASS, AMBER = "143,227,205", "255,208,122"


async def test_a_person_reads_what_comes_what_goes_and_why() -> None:
    async with (
        relay_process() as relay,
        guest(relay.origin, "Ada", room="r") as ada,
        guest(relay.origin, "Bo", room="r") as bo,
    ):
        await ada.join()
        await bo.join()
        await ada.sees("Bo")
        assert not await ada.page.is_visible("#quality")
        await ada.page.keyboard.press("q")

        async def is_told() -> bool:
            down, seen = await ada.text("#quality-down"), await ada.text("#quality-seen")
            rate = re.fullmatch(r"(\d+) kbit/s|([\d.]+) Mbit/s", down)
            return bool(rate) and down != "0 kbit/s" and re.search(r"(?s)Bo, camera.*\d+ × \d+, [1-9]\d* a second", seen) is not None

        await until(is_told, "the panel says what comes of Bo")
        assert "over UDP" in await ada.text("#quality-path")
        assert re.search(r"(?s)Your camera.*\d+ lines at \d", await ada.text("#quality-sent"))
        await until(lambda: ada.page.evaluate(COLOURS), "something is drawn")

        async def is_drawn() -> bool:
            return {GLASS, AMBER} <= set(await ada.page.evaluate(COLOURS))

        await until(is_drawn, "both directions are drawn")
        asked = relay.log_text().count("/veil/quality")
        await ada.page.keyboard.press("Escape")
        assert not await ada.page.is_visible("#quality")
        await bo.page.close()
        assert relay.log_text().count("/veil/quality") <= asked + 1, "a closed panel asks nothing"

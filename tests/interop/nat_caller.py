"""Two browsers of one host call each other through the built-in page; run by test_nat.py inside the caller's namespace.

usage: python -m tests.interop.nat_caller URL-WITH-INVITE SCREENSHOT      prints one JSON line: what each page decoded
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.browsers import ChromiumPage, chromium

JOIN = """async (name) => {
  const until = async (holds) => { for (let i = 0; i < 200 && !holds(); i++) await new Promise(r => setTimeout(r, 100)); };
  await until(() => document.body.dataset.screen === "lobby");
  document.querySelector("#join-name").value = name;
  document.querySelector("#join-name").dispatchEvent(new Event("input", {bubbles: true}));
  await until(() => !document.querySelector("#join-button").disabled);
  document.querySelector("#join-button").click();
  await until(() => document.body.dataset.screen === "call");
  return document.body.dataset.screen + " " + document.querySelector("#join-problem").textContent;
}"""

WATCH = """async (seconds) => {
  const videos = () => [...document.querySelectorAll("#stage video")];
  const played = () => videos().map(v => v.getVideoPlaybackQuality().totalVideoFrames);
  for (let i = 0; i < 150 && !(videos().length >= 2 && played().every(n => n > 5)); i++)
    await new Promise(r => setTimeout(r, 100));
  const before = played();
  await new Promise(r => setTimeout(r, seconds * 1000));
  return played().map((n, i) => n - (before[i] ?? 0));
}"""


def trust(authority: str, home: str) -> None:
    """Make Chromium under this home believe the test's certificate authority, as a company's machines do."""
    store = Path(home, ".pki", "nssdb")
    store.mkdir(parents=True)
    for arguments in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "test authority", "-i", authority]):
        subprocess.run(["certutil", "-d", f"sql:{store}", *arguments], check=True, capture_output=True)


async def join(page: ChromiumPage, url: str, name: str) -> None:
    await page.goto(url)
    screen = await page.evaluate(JOIN, name)
    if not screen.startswith("call"):
        raise SystemExit(f"{name} did not get into the call: {screen}; {page.console[-5:]}")


async def main(url: str, screenshot: str) -> None:
    async with chromium() as ada, chromium() as bob:
        await join(ada, url, "Ada")
        await join(bob, url, "Bob")
        frames = await asyncio.gather(ada.evaluate(WATCH, 4), bob.evaluate(WATCH, 4))
        await ada.screenshot(Path(screenshot))
        print(json.dumps({"ada": frames[0], "bob": frames[1]}), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="veil-home-") as folder:
        os.environ["HOME"] = folder
        trust(os.environ["VEIL_TEST_AUTHORITY"], folder)
        asyncio.run(main(sys.argv[1], sys.argv[2]))

/**
 * Where the relay is. A page that another server hosts is told by `relay.json` beside it: {"server": its origin}. A relay's own
 * names none, and the page asks where it came from. No link can send the page elsewhere.
 */

import { NotSetUp, SignalUnreachable } from "./errors.js";

let origin = location.origin;

/** Read relay.json.   Throws: NotSetUp, SignalUnreachable. */
export async function findRelay() {
  let answer;
  try {
    answer = await fetch(new URL("../relay.json", import.meta.url), { cache: "no-store" });
  } catch {
    throw new SignalUnreachable("no answer");
  }
  if (answer.status === 404) return;
  const { server } = await answer.json().catch(() => ({}));
  if (server !== "" && !isOrigin(server)) throw new NotSetUp("Its relay.json names no address of a relay.");
  origin = server || location.origin;
}

/** Return the address of a path there; `isSocket` for a WebSocket. */
export function relayUrl(path, { isSocket = false } = {}) {
  const url = new URL(path, origin);
  if (isSocket) url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

/** True when the relay answers, and this page is of an origin that it does not speak to. */
export async function isTurnedAway() {
  if (origin === location.origin) return false;
  try {
    await fetch(relayUrl("/healthz"), { mode: "no-cors", cache: "no-store" });
    return true;
  } catch {
    return false;
  }
}

function isOrigin(text) {
  try {
    const url = new URL(text);
    return /^https?:$/.test(url.protocol) && url.origin === text;
  } catch {
    return false;
  }
}

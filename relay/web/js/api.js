/** What the page asks the relay over HTTP: whether names are enough here, and tokens. */

import { NotSetUp, SignalRefused, SignalUnreachable } from "./errors.js";
import { isTurnedAway, relayUrl } from "./relay.js";

/** Return {dev}: whether this server lets people in by name and room. */
export async function serverConfig() {
  const answer = await ask("/client/config");
  if (answer.ok) return answer.json();
  // A relay that does not tell: development joins exist on loopback alone.
  if (answer.status === 404) return { dev: isLoopback(relayUrl("/").hostname) };
  throw await refusal(answer);
}

/** Return {token, room, identity} for a guest with an invite.   Errors: SignalRefused, SignalUnreachable. */
export function joinByInvite(invite, name, format) {
  return post("/client/join", { invite, name, ...termsOf(format) });
}

/** Return {token, room, identity} on a development server; the first one's format is the room's.   Errors: SignalRefused,
 *  SignalUnreachable. */
export function joinByRoom(room, name, format) {
  return post("/client/dev-join", { room, name, ...termsOf(format) });
}

/** Who has a key wants a call of its format and no other; who has none takes the call as it is. */
function termsOf(format) {
  return format ? { e2ee_profile: "shared-passphrase", frame_format: format } : {};
}

/** Return {room, isExpired} of an invite, as far as it can be read without its key: only the server can judge it. */
export function readInvite(invite) {
  try {
    const body = invite.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
    const { room = "", exp = Infinity } = JSON.parse(new TextDecoder().decode(bytes));
    return { room: String(room), isExpired: exp * 1000 < Date.now() };
  } catch {
    return { room: "", isExpired: false };
  }
}

/** Return the relay's account of what this participant is sent and why, null when it gives none now. */
export async function qualityOf(token) {
  try {
    const answer = await fetch(relayUrl("/veil/quality"), { cache: "no-store", headers: { Authorization: `Bearer ${token}` } });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

async function post(path, body) {
  const answer = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

async function ask(path, options = {}) {
  try {
    return await fetch(relayUrl(path), { cache: "no-store", ...options });
  } catch {
    // To a page, an answer that it may not read looks like none.
    if (await isTurnedAway()) throw new NotSetUp(`The server takes no calls from ${location.origin}: its web_origin is another.`);
    throw new SignalUnreachable("no answer");
  }
}

async function refusal(answer) {
  const body = await answer.json().catch(() => ({}));
  return new SignalRefused("refused", answer.status, body.error ?? "");
}

function isLoopback(host) {
  return host === "localhost" || host === "[::1]" || host.startsWith("127.");
}

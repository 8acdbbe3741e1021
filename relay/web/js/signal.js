/**
 * The signalling connection: LiveKit's protocol v0 as protobuf-JSON in text frames (LIVEKIT §2).
 *
 * One key per frame is the kind of message. Defaults are left out, 64-bit numbers are strings, enums are names.
 */

import { SessionOver, SignalRefused, SignalUnreachable } from "./errors.js";
import { relayUrl } from "./relay.js";

const PROTOCOL = 16;
const VERSION = "0.1.0";
const JOIN_TIMEOUT_MS = 10_000;

export class Signal {
  /** Open a connection and return {signal, join}.   Errors: SignalRefused, SignalUnreachable.
   *  Frames after the first wait until `start` is called, so that none is lost before somebody listens. */
  static async connect(token) {
    const { socket, first } = await open(addressOf(token));
    const { join, leave } = first;
    if (join) return { signal: new Signal(socket, join), join };
    socket.close();
    throw leave ? new SignalRefused("left", 0, "", leave.reason) : new SignalUnreachable("the first frame was not a join");
  }

  /** Open a connection in place of a lost one and return {signal, reconnect}. `pings` is what the join said of them.
   *  Errors: SessionOver, SignalRefused, SignalUnreachable. */
  static async resume(token, sid, pings) {
    const { socket, first } = await open(addressOf(token, { reconnect: "1", sid }));
    const { reconnect, leave } = first;
    if (reconnect) return { signal: new Signal(socket, pings), reconnect };
    socket.close();
    throw leave ? new SessionOver(leave) : new SignalUnreachable("the first frame was not a reconnect");
  }

  constructor(socket, { pingInterval, pingTimeout }) {
    this.rttMs = 0;
    this.#socket = socket;
    this.#timeoutMs = (pingTimeout || 15) * 1000;
    this.#heardMs = performance.now();
    socket.onmessage = (event) => this.#onFrame(event.data);
    socket.onclose = () => this.#end("closed");
    this.#timer = setInterval(() => this.#ping(), (pingInterval || 5) * 1000);
  }

  #socket;
  #timer;
  #timeoutMs;
  #heardMs;
  #waiting = [];
  #handlers = null;
  #onClosed = () => {};
  #isOver = false;

  /** Hand over every message by its kind, waiting ones first; `onClosed` is called once, not after `close`. */
  start(handlers, onClosed) {
    this.#handlers = handlers;
    this.#onClosed = onClosed;
    for (const message of this.#waiting.splice(0)) this.#dispatch(message);
    if (this.#socket.readyState === WebSocket.CLOSED) this.#end("closed");
  }

  send(request) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(request));
  }

  /** Say goodbye and close. */
  leave() {
    this.send({ leave: { reason: "CLIENT_INITIATED", action: "DISCONNECT" } });
    this.close();
  }

  close() {
    this.#isOver = true;
    clearInterval(this.#timer);
    this.#socket.close();
  }

  #onFrame(data) {
    this.#heardMs = performance.now();
    if (typeof data !== "string") return;
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (message.pongResp) {
      this.rttMs = Math.max(0, Date.now() - Number(message.pongResp.lastPingTimestamp || 0));
    } else if (this.#handlers) {
      this.#dispatch(message);
    } else {
      this.#waiting.push(message);
    }
  }

  #dispatch(message) {
    if (this.#isOver) return;
    for (const [kind, body] of Object.entries(message)) this.#handlers[kind]?.(body);
  }

  #ping() {
    // A computer that slept wakes up with a dead connection; this notices it at the first tick.
    if (performance.now() - this.#heardMs > this.#timeoutMs) {
      this.#end("timeout");
      return;
    }
    this.send({ pingReq: { timestamp: String(Date.now()), rtt: String(this.rttMs) } });
  }

  #end(why) {
    if (this.#isOver) return;
    this.close();
    this.#onClosed(why);
  }
}

/** Return {socket, first}: an open connection and its first frame. */
async function open(url) {
  const socket = new WebSocket(url);
  try {
    return { socket, first: await firstFrame(socket) };
  } catch {
    socket.close();
    // A browser does not tell why an upgrade was refused; the server says it here, to the same query.
    throw await reasonOf(url);
  }
}

function addressOf(token, more = {}) {
  const url = relayUrl("/rtc", { isSocket: true });
  url.search = new URLSearchParams({
    access_token: token,
    auto_subscribe: "1",
    sdk: "js",
    protocol: String(PROTOCOL),
    version: VERSION,
    veil_json: "1",
    ...more,
  });
  return url;
}

function firstFrame(socket) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no answer")), JOIN_TIMEOUT_MS);
    socket.onerror = () => reject(new Error("refused"));
    socket.onclose = () => reject(new Error("closed"));
    socket.onmessage = ({ data }) => {
      clearTimeout(timer);
      // What follows comes in later turns of the event loop, when the constructor has taken over.
      try {
        resolve(JSON.parse(data));
      } catch (error) {
        reject(error);
      }
    };
  });
}

async function reasonOf(url) {
  const asked = relayUrl(`${url.pathname.replace(/\/$/, "")}/validate`);
  asked.search = url.search;
  try {
    const answer = await fetch(asked, { cache: "no-store" });
    const sentence = (await answer.text()).trim();
    if (!answer.ok) return new SignalRefused("refused", answer.status, sentence);
    return new SignalUnreachable("the server takes the token, but no WebSocket opens");
  } catch {
    return new SignalUnreachable("no answer");
  }
}

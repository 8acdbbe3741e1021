/**
 * End-to-end encryption of one connection: transforms on every sender and receiver, and what is known of each track's frames.
 *
 * Browsers fail open: a transform that is attached one task too late is passed by in silence. So the peer connections of an
 * encrypted call are made with `encodedInsertableStreams`, `protect` and `unlock` are called in the same task as the sender or
 * receiver came to be, and a track counts as locked only once as many frames were sealed as the browser says it encoded.
 */

import { CannotEncrypt } from "./errors.js";
import { linkDataKey, newKid, passphraseKey } from "./keys.js";

const CHECK_MS = 1_000;
// Frames under way between encoder and transform.
const MAX_UNSEALED = 30;
// MAX_UNSEALED of a slow picture, and two checks.
const SELF_TEST_MS = 6_000;
const FAILURES = 10;
const ENCRYPTION = { livekit_gcm: "GCM", sframe: "CUSTOM" };
const DATA_TYPE = { livekit_gcm: 1, sframe: 2 };
export const KEYS_TOPIC = "veil.keys";

export class E2ee {
  #secret;
  #worker;
  #onLock;
  #onSealed;
  #onLeak;
  #senders = new Map(); // cid → {sender, id, hasBegun, behind}
  #counts = new Map(); // id → the worker's last report
  #trackByReceiver = new Map(); // id → track sid
  #idOfReceiver = new WeakMap();
  #count = 0;
  #timer;
  #dataKeys = new Map();

  /**
   * `onLock(trackSid, lock)`: how others' frames open: "locked", "missing", "mismatch". `onSealed(isSealed)`: whether everything
   * this browser encodes is seen to be sealed. `onLeak(cid)`: frames went past the transform.   Throws: CannotEncrypt.
   */
  constructor(secret, { onLock, onSealed, onLeak }) {
    // Before anything is added to a connection, on which it would go out in clear.
    if (secret && !("RTCRtpScriptTransform" in globalThis)) throw new CannotEncrypt();
    this.#secret = secret;
    this.#onLock = onLock;
    this.#onSealed = onSealed;
    this.#onLeak = onLeak;
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#onCounts(data);
    if (secret) this.#worker.postMessage({ type: "secret", secret });
    this.#timer = setInterval(() => this.#check(), CHECK_MS);
  }

  /** True when this person sends sealed frames. */
  get isOn() {
    return Boolean(this.#secret);
  }

  /** How long the self-test may take to see that frames go past the transform; 0 where they may. */
  get looksForMs() {
    return this.isOn ? SELF_TEST_MS : 0;
  }

  /** What to add to an RTCPeerConnection's configuration. */
  get configuration() {
    return this.isOn ? { encodedInsertableStreams: true } : {};
  }

  /** What an announced track says of its frames. */
  get announcement() {
    return this.isOn ? { encryption: ENCRYPTION[this.#secret.format], disableRed: true } : {};
  }

  /** Seal what a sender sends. In the task that made it. */
  protect(sender, cid) {
    if (!this.isOn) return;
    this.#forget(this.#senders.get(cid)?.id);
    // An id of its own: a track that is sent again is counted from the beginning.
    const id = `out-${++this.#count}`;
    this.#senders.set(cid, { sender, id, hasBegun: false, behind: 0 });
    sender.transform = new RTCRtpScriptTransform(this.#worker, { id, direction: "send" });
  }

  /** The relay knows the track: frames may be sealed. Returns what to tell everybody first, null for nothing. */
  begin(cid, identity, trackSid) {
    const known = this.#senders.get(cid);
    if (!known || known.hasBegun) return null;
    known.hasBegun = true;
    const kid = newKid();
    this.#worker.postMessage({ type: "stream", id: known.id, identity, trackSid, kid });
    if (this.#secret.format !== "sframe") return null;
    const payload = new TextEncoder().encode(JSON.stringify({ track_sid: trackSid, kids: [kid, kid] }));
    return { kind: "RELIABLE", user: { topic: KEYS_TOPIC, payload } };
  }

  /** Tell the codec of everything sent; Firefox does not write it into frames. */
  negotiated() {
    for (const { sender, id } of this.#senders.values()) {
      const codec = sender.getParameters().codecs?.[0]?.mimeType;
      if (codec) this.#worker.postMessage({ type: "stream", id, codec });
    }
  }

  /** Open what a receiver receives. In the task of its `track` event. */
  unlock(receiver, { identity, trackSid, codec }) {
    // A section of the connection is used again for another track.
    this.#forget(this.#idOfReceiver.get(receiver));
    const id = `in-${++this.#count}`;
    this.#idOfReceiver.set(receiver, id);
    this.#trackByReceiver.set(id, trackSid);
    this.#worker.postMessage({ type: "stream", id, identity, trackSid, codec });
    receiver.transform = new RTCRtpScriptTransform(this.#worker, { id, direction: "receive" });
  }

  /** Return a sealed data packet's field for a payload. */
  async sealData(identity, payload) {
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const key = await this.#dataKey(identity);
    const value = new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, payload));
    return { type: DATA_TYPE[this.#secret.format], iv, keyIndex: 0, value };
  }

  /** Return the payload of somebody's sealed data packet, null when it does not open. */
  async openData(identity, { iv, value }) {
    if (!this.isOn) return null;
    try {
      const key = await this.#dataKey(identity);
      return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, value));
    } catch {
      return null;
    }
  }

  close() {
    clearInterval(this.#timer);
    this.#worker.terminate();
  }

  #forget(id) {
    if (!id) return;
    this.#worker.postMessage({ type: "forget", id });
    this.#counts.delete(id);
    this.#trackByReceiver.delete(id);
  }

  #dataKey(identity) {
    const { format, key, passphrase } = this.#secret;
    const name = format === "sframe" ? identity : "";
    if (!this.#dataKeys.has(name)) {
      this.#dataKeys.set(name, format === "sframe" ? linkDataKey(key, identity) : passphraseKey(passphrase));
    }
    return this.#dataKeys.get(name);
  }

  #onCounts(counts) {
    const before = this.#counts.get(counts.id) ?? { done: 0, failed: 0, dropped: 0 };
    this.#counts.set(counts.id, counts);
    const trackSid = this.#trackByReceiver.get(counts.id);
    if (!trackSid) return;
    if (counts.done > before.done) this.#onLock(trackSid, "locked");
    else if (counts.dropped > before.dropped) this.#onLock(trackSid, "missing");
    else if (counts.failed >= FAILURES) this.#onLock(trackSid, counts.reason === "missing" ? "missing" : "mismatch");
  }

  /** The self-test: what the browser encoded beside what was sealed. */
  async #check() {
    if (!this.#senders.size) return;
    let isSealed = true;
    for (const [cid, known] of this.#senders) {
      const { done = 0, dropped = 0, failed = 0 } = this.#counts.get(known.id) ?? {};
      let encoded = 0;
      for (const report of (await known.sender.getStats()).values()) {
        if (report.type === "outbound-rtp") encoded += report.framesEncoded ?? report.packetsSent ?? 0;
      }
      // Packets of sound are counted behind the transform, so only what is more than was sealed can have passed it by.
      const unsealed = encoded - done - dropped - failed;
      known.behind = unsealed > MAX_UNSEALED ? known.behind + 1 : 0;
      // Twice in a row: the two counts come from different threads.
      if (known.behind >= 2) this.#onLeak(cid);
      // A track that is off encodes nothing, and has nothing to prove.
      if (known.behind || (encoded > MAX_UNSEALED && !done)) isSealed = false;
    }
    this.#onSealed(isSealed && [...this.#senders.values()].some(({ id }) => this.#counts.get(id)?.done));
  }
}

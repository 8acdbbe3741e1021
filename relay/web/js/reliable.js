/**
 * Reliable data packets over a connection that breaks: numbered by their sender, kept for a while, and sent again on resuming
 * where the relay has not had them; whoever gets one twice drops the second (LIVEKIT §2.10).
 */

import { encodePacket } from "./datapacket.js";

// Far more than people write while a connection is away.
const MAX_KEPT = 256;
const MAX_KEPT_BYTES = 1 << 20;
const MAX_SENDERS = 10_000;

/** What one participant sends over one data channel. */
export class Sent {
  #channel;
  #kept = []; // {sequence, bytes}, oldest first
  #keptBytes = 0;
  #sequence = 0;
  #passedOn = 0; // The newest that the channel has taken.

  constructor(channel) {
    this.#channel = channel;
    channel.onopen = () => this.#pass();
  }

  /** Number a packet and send it, once the channel is open. */
  send(packet) {
    const sequence = ++this.#sequence;
    const bytes = encodePacket({ ...packet, kind: "RELIABLE", sequence });
    this.#kept.push({ sequence, bytes });
    this.#keptBytes += bytes.length;
    this.#pass();
    while (this.#kept[0].sequence <= this.#passedOn && (this.#kept.length > MAX_KEPT || this.#keptBytes > MAX_KEPT_BYTES)) {
      this.#keptBytes -= this.#kept.shift().bytes.length;
      if (!this.#kept.length) break;
    }
  }

  /** Send again what is newer than the last packet that the relay has had. */
  resend(lastSequence) {
    this.#kept = this.#kept.filter(({ sequence }) => sequence > lastSequence);
    this.#keptBytes = this.#kept.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#passedOn = Math.min(this.#passedOn, lastSequence);
    this.#pass();
  }

  #pass() {
    if (this.#channel.readyState !== "open") return;
    for (const { sequence, bytes } of this.#kept) {
      if (sequence <= this.#passedOn) continue;
      this.#channel.send(bytes);
      this.#passedOn = sequence;
    }
  }
}

/** What came of every sender. */
export class Received {
  #last = new Map(); // participant sid → sequence

  /** True for a packet that was not here before; those without a number always are new. */
  take({ participantSid, sequence }) {
    if (!sequence) return true;
    if (sequence <= (this.#last.get(participantSid) ?? 0)) return false;
    this.#last.delete(participantSid);
    this.#last.set(participantSid, sequence);
    if (this.#last.size > MAX_SENDERS) this.#last.delete(this.#last.keys().next().value);
    return true;
  }

  /** What the relay is told on resuming. */
  states() {
    return [...this.#last].map(([publisherSid, lastSeq]) => ({ publisherSid, lastSeq }));
  }

  clear() {
    this.#last.clear();
  }
}

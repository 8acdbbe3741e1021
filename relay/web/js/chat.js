/** Text messages in a call: LiveKit's chat_message in reliable data packets; user packets of topic "chat" are read too. */

import { decodePacket, decodePayload, encodePayload } from "./datapacket.js";
import { Received } from "./reliable.js";

export const MAX_CHARACTERS = 2000;
const TOPICS = ["chat", "lk-chat-topic"];
// The relay's own word; it lets no participant write on this topic.
const NOTICE_TOPIC = "veil.notice";
const MAX_KEPT = 500;
// A relay that sends a sealed message again cannot make it another one.
const MAX_SEEN = 10_000;

export class Chat {
  #store;
  #send;
  received = new Received();
  #seen = new Set(); // IVs of sealed messages
  #turn = Promise.resolve(); // Sealing takes a moment; messages keep their order.
  onNotice = () => {}; // Called with what the relay has to say to this person.
  e2ee = null; // Of the present connection; with its secret, every message is sealed.

  constructor(store, send) {
    this.#store = store;
    this.#send = send;
  }

  /** Send a text to everybody. */
  say(text) {
    const message = text.trim().slice(0, MAX_CHARACTERS);
    if (!message) return;
    const chat = { id: messageId(), timestamp: Date.now(), message };
    const { me, name, identity } = this.#store.state;
    const { e2ee } = this;
    this.#turn = this.#turn.then(async () => {
      const content = e2ee?.isOn ? { encrypted: await e2ee.sealData(identity, encodePayload({ chat })) } : { chat };
      this.#send(content);
    });
    this.#add({ id: chat.id, from: me, name, text: message, atMs: chat.timestamp, isMine: true });
  }

  /** Take the bytes of a data channel message; the relay has written the true sender into them. */
  onData(data, participants) {
    const packet = data instanceof ArrayBuffer ? decodePacket(data) : null;
    // Packets may be repeated after a reconnect, of ours or of their sender.
    if (!packet || !this.received.take(packet)) return;
    if (packet.user?.topic === NOTICE_TOPIC) {
      if (!packet.participantIdentity) this.onNotice(new TextDecoder().decode(packet.user.payload));
      return;
    }
    const { e2ee } = this;
    this.#turn = this.#turn.then(async () => {
      if (packet.encrypted) {
        const iv = packet.encrypted.iv.join();
        const payload = await e2ee?.openData(packet.participantIdentity, packet.encrypted);
        const content = payload && decodePayload(payload);
        // What stands beside a sealed message in clear is nobody's but the relay's.
        if (!content || this.#seen.has(iv)) return;
        this.#seen.add(iv);
        if (this.#seen.size > MAX_SEEN) this.#seen.delete(this.#seen.values().next().value);
        Object.assign(packet, content);
      } else if (e2ee?.isOn) {
        // In an encrypted call a clear message may be the relay's own.
        return;
      }
      this.#take(packet, participants);
    });
  }

  #take(packet, participants) {
    const text = textOf(packet);
    if (!text) return;
    const { participantSid: from } = packet;
    const name = participants.get(from)?.name ?? (packet.participantIdentity || "Somebody");
    const id = packet.chat?.id || packet.user?.id || messageId();
    this.#add({ id, from, name, text: text.slice(0, MAX_CHARACTERS), atMs: Date.now(), isMine: false });
  }

  clear() {
    this.received.clear();
    this.#store.update({ messages: [], unread: 0 });
  }

  #add(message) {
    this.#store.update((state) => ({
      messages: [...state.messages, message].slice(-MAX_KEPT),
      unread: state.panel === "chat" || message.isMine ? 0 : state.unread + 1,
    }));
  }
}

function textOf({ chat, user }) {
  if (chat) return chat.deleted ? "" : chat.message;
  if (!user || !TOPICS.includes(user.topic)) return "";
  const text = new TextDecoder().decode(user.payload);
  try {
    // LiveKit's components put JSON into such packets.
    const { message } = JSON.parse(text);
    return typeof message === "string" ? message : text;
  } catch {
    return text;
  }
}

// crypto.randomUUID exists in secure contexts only.
function messageId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

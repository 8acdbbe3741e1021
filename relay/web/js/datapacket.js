/**
 * LiveKit's DataPacket on the wire: the few fields a call needs, the rest skipped (LIVEKIT §2.11).
 *
 * Protocol buffers, proto3: every field is a tag (number << 3 | wire type) and a value; field numbers are those of
 * livekit_models.proto. Nothing here decides anything.
 */

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
const KINDS = ["RELIABLE", "LOSSY"];
// No message of ours comes near; what others send is bounded by the data channel.
const MAX_BYTES = 1 << 20;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

class Writer {
  constructor() {
    this.bytes = [];
  }

  varint(value) {
    // Division instead of shifts: milliseconds since 1970 have more than 32 bits.
    for (; value >= 128; value = Math.floor(value / 128)) this.bytes.push((value % 128) | 128);
    this.bytes.push(value);
  }

  number(field, value) {
    if (!value) return;
    this.varint((field << 3) | VARINT);
    this.varint(value);
  }

  raw(field, bytes) {
    this.varint((field << 3) | BYTES);
    this.varint(bytes.length);
    for (const byte of bytes) this.bytes.push(byte);
  }

  text(field, value) {
    if (value) this.raw(field, encoder.encode(value));
  }

  texts(field, values = []) {
    for (const value of values) this.raw(field, encoder.encode(value));
  }
}

/** Return the bytes of a packet: {kind, participantSid, participantIdentity, destinationIdentities, sequence} and one
 *  of `user` {payload, topic, id, …}, `chat` {id, timestamp, message, …} or `encrypted` {type, iv, keyIndex, value}. */
export function encodePacket(packet) {
  const out = new Writer();
  out.number(1, Math.max(0, KINDS.indexOf(packet.kind ?? "RELIABLE")));
  if (packet.user) out.raw(2, encodeUser(packet.user));
  out.text(4, packet.participantIdentity);
  out.texts(5, packet.destinationIdentities);
  if (packet.chat) out.raw(9, encodeChat(packet.chat));
  out.number(16, packet.sequence);
  out.text(17, packet.participantSid);
  if (packet.encrypted) out.raw(18, encodeEncrypted(packet.encrypted));
  return Uint8Array.from(out.bytes);
}

/** Return the bytes that are sealed of a packet: an EncryptedPacketPayload with its `user` or `chat`. */
export function encodePayload({ user, chat }) {
  const out = new Writer();
  if (user) out.raw(1, encodeUser(user));
  if (chat) out.raw(3, encodeChat(chat));
  return Uint8Array.from(out.bytes);
}

function encodeEncrypted({ type, iv, keyIndex, value }) {
  const out = new Writer();
  out.number(1, type);
  out.raw(2, iv);
  out.number(3, keyIndex);
  out.raw(4, value);
  return out.bytes;
}

function encodeUser(user) {
  const out = new Writer();
  out.text(1, user.participantSid);
  if (user.payload?.length) out.raw(2, user.payload);
  out.text(4, user.topic);
  out.text(5, user.participantIdentity);
  out.texts(6, user.destinationIdentities);
  out.text(8, user.id);
  return out.bytes;
}

function encodeChat(chat) {
  const out = new Writer();
  out.text(1, chat.id);
  out.number(2, chat.timestamp);
  out.number(3, chat.editTimestamp);
  out.text(4, chat.message);
  out.number(5, chat.deleted ? 1 : 0);
  return out.bytes;
}

/** Yield [field, value] of every field; a number for varints, bytes for what has a length, nothing for the rest. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= bytes.length) throw new RangeError("varint is cut short");
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
    throw new RangeError("varint is too long");
  };
  const take = (length) => {
    if (length < 0 || length > bytes.length - at) throw new RangeError("field is cut short");
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    const type = tag & 7;
    if (field < 1) throw new RangeError("field number is not positive");
    if (type === VARINT) yield [field, varint()];
    else if (type === BYTES) yield [field, take(varint())];
    else if (type === FIXED64) take(8);
    else if (type === FIXED32) take(4);
    else throw new RangeError(`wire type ${type} is not in use`);
  }
}

const text = (value) => (typeof value === "number" ? "" : decoder.decode(value));
const number = (value) => (typeof value === "number" ? value : 0);

/** Return the packet in these bytes, null when they are none: what a peer sends wrongly is dropped, not raised. */
export function decodePacket(buffer) {
  const bytes = buffer instanceof Uint8Array ? buffer : new Uint8Array(buffer);
  if (bytes.length > MAX_BYTES) return null;
  const packet = {
    kind: "RELIABLE",
    participantSid: "",
    participantIdentity: "",
    destinationIdentities: [],
    sequence: 0,
    user: null,
    chat: null,
    encrypted: null,
  };
  try {
    for (const [field, value] of fields(bytes)) {
      if (field === 1) packet.kind = KINDS[number(value)] ?? "RELIABLE";
      else if (field === 2) packet.user = decodeUser(value);
      else if (field === 4) packet.participantIdentity = text(value);
      else if (field === 5) packet.destinationIdentities.push(text(value));
      else if (field === 9) packet.chat = decodeChat(value);
      else if (field === 16) packet.sequence = number(value) >>> 0;
      else if (field === 17) packet.participantSid = text(value);
      else if (field === 18) packet.encrypted = decodeEncrypted(value);
    }
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
  return packet;
}

/** Return {user, chat} of an opened EncryptedPacketPayload, null when it is none. */
export function decodePayload(bytes) {
  const payload = { user: null, chat: null };
  try {
    for (const [field, value] of fields(bytes)) {
      if (field === 1) payload.user = decodeUser(value);
      else if (field === 3) payload.chat = decodeChat(value);
    }
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
  return payload;
}

function decodeEncrypted(bytes) {
  const encrypted = { type: 0, iv: new Uint8Array(), keyIndex: 0, value: new Uint8Array() };
  for (const [field, value] of fields(message(bytes))) {
    if (field === 1) encrypted.type = number(value);
    else if (field === 2) encrypted.iv = Uint8Array.from(message(value));
    else if (field === 3) encrypted.keyIndex = number(value);
    else if (field === 4) encrypted.value = Uint8Array.from(message(value));
  }
  return encrypted;
}

function decodeUser(bytes) {
  const user = { participantSid: "", participantIdentity: "", payload: new Uint8Array(), topic: "", id: "" };
  user.destinationIdentities = [];
  for (const [field, value] of fields(message(bytes))) {
    if (field === 1) user.participantSid = text(value);
    else if (field === 2) user.payload = Uint8Array.from(message(value));
    else if (field === 4) user.topic = text(value);
    else if (field === 5) user.participantIdentity = text(value);
    else if (field === 6) user.destinationIdentities.push(text(value));
    else if (field === 8) user.id = text(value);
  }
  return user;
}

function decodeChat(bytes) {
  const chat = { id: "", timestamp: 0, editTimestamp: 0, message: "", deleted: false };
  for (const [field, value] of fields(message(bytes))) {
    if (field === 1) chat.id = text(value);
    else if (field === 2) chat.timestamp = number(value);
    else if (field === 3) chat.editTimestamp = number(value);
    else if (field === 4) chat.message = text(value);
    else if (field === 5) chat.deleted = number(value) !== 0;
  }
  return chat;
}

function message(value) {
  if (typeof value === "number") throw new RangeError("a message was expected");
  return value;
}

/**
 * LiveKit's frame format: clear bytes | ciphertext and tag | IV (12) | 12 | key index (LIVEKIT section 4.2). The same as
 * relay/e2ee/livekit_gcm.py, byte for byte. There is no AV1 in it.
 */

import { FrameError } from "./errors.js";

const IV_BYTES = 12;
const TAG_BYTES = 16;
const TRAILER_BYTES = IV_BYTES + 2;
const COUNTER_MODULUS = 0xffff;
const SLICES = [1, 5];

/** Return how many bytes of a non-empty frame stay readable.   Throws: FrameError. */
export function clearBytes(codec, frame) {
  let size = { opus: 1, vp8: frame[0] & 1 ? 3 : 10, vp9: 0 }[codec];
  if (codec === "h264") size = h264ClearBytes(frame);
  if (size === undefined || size > frame.length) throw new FrameError("malformed");
  return size;
}

function h264ClearBytes(frame) {
  for (let at = 0; at + 3 < frame.length; at++) {
    const isStart = frame[at] === 0 && frame[at + 1] === 0 && frame[at + 2] === 1;
    if (isStart && SLICES.includes(frame[at + 3] & 31)) return at + 5;
  }
  throw new FrameError("malformed");
}

/** Write emulation prevention bytes (ITU-T H.264 section 7.4.1). */
function escape(bytes) {
  const out = [];
  let zeros = 0;
  for (const byte of bytes) {
    if (zeros >= 2 && byte <= 3) {
      out.push(3);
      zeros = 0;
    }
    out.push(byte);
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return Uint8Array.from(out);
}

function unescape(bytes) {
  const out = [];
  let zeros = 0;
  for (const byte of bytes) {
    if (zeros >= 2 && byte === 3) {
      zeros = 0;
      continue;
    }
    out.push(byte);
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return Uint8Array.from(out);
}

/** Every start code with four bytes, which is what depacketisers write. */
function longStartCodes(bytes) {
  const out = [];
  for (const [at, byte] of bytes.entries()) {
    const isStart = byte === 0 && bytes[at + 1] === 0 && bytes[at + 2] === 1;
    if (isStart && (at === 0 || bytes[at - 1] !== 0)) out.push(0);
    out.push(byte);
  }
  return Uint8Array.from(out);
}

/** One publication's frames under one key, in either direction. */
export class LivekitCipher {
  #key;
  #index;
  #counters = new Map(); // By SSRC.

  constructor(key, index = 0) {
    this.#key = key;
    this.#index = index;
  }

  async seal(codec, frame, { ssrc, timestamp }) {
    const size = clearBytes(codec, frame);
    const clear = codec === "h264" ? longStartCodes(frame.subarray(0, size)) : frame.subarray(0, size);
    const counter = this.#counters.get(ssrc) ?? Math.floor(Math.random() * COUNTER_MODULUS);
    this.#counters.set(ssrc, counter + 1);
    const iv = new Uint8Array(IV_BYTES);
    const view = new DataView(iv.buffer);
    view.setUint32(0, ssrc);
    view.setUint32(4, timestamp);
    view.setUint32(8, timestamp - (counter % COUNTER_MODULUS));
    const how = { name: "AES-GCM", iv, additionalData: clear };
    const sealed = new Uint8Array(await crypto.subtle.encrypt(how, this.#key, frame.subarray(size)));
    let body = new Uint8Array(sealed.length + TRAILER_BYTES);
    body.set(sealed);
    body.set(iv, sealed.length);
    body.set([IV_BYTES, this.#index], sealed.length + IV_BYTES);
    if (codec === "h264") body = escape(body);
    const out = new Uint8Array(clear.length + body.length);
    out.set(clear);
    out.set(body, clear.length);
    return out;
  }

  /** Return the frame.   Throws: FrameError. */
  async open(codec, frame) {
    const size = clearBytes(codec, frame);
    const clear = frame.subarray(0, size);
    const body = codec === "h264" ? unescape(frame.subarray(size)) : frame.subarray(size);
    const end = body.length - TRAILER_BYTES;
    if (end < TAG_BYTES || body[body.length - 2] !== IV_BYTES) throw new FrameError("malformed");
    if (body[body.length - 1] !== this.#index) throw new FrameError("missing");
    const how = { name: "AES-GCM", iv: body.slice(end, end + IV_BYTES), additionalData: clear };
    try {
      const plaintext = new Uint8Array(await crypto.subtle.decrypt(how, this.#key, body.subarray(0, end)));
      const out = new Uint8Array(size + plaintext.length);
      out.set(clear);
      out.set(plaintext, size);
      return out;
    } catch {
      throw new FrameError("mismatch");
    }
  }
}

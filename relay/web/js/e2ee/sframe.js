/**
 * SFrame suite 4 (RFC 9605) inside encoded frames: VP8 keeps its first byte in front, AV1 gets one OBU of type 6 around all of
 * it, VP9 and Opus need nothing. The same as relay/e2ee/framing.py and ext/relaycore/frameseal.pyx, byte for byte.
 */

import { FrameError } from "./errors.js";

const TAG_BYTES = 16;
const WINDOW = 1024n;
const EMPTY_SEQUENCE_HEADER = [0x0a, 1, 0];
const OBU_FRAME = 6;

/** Return the header of a KID and a CTR (BigInt each).   Spec: section 4.3. */
export function writeHeader(kid, ctr) {
  let config = 0;
  const tail = [];
  for (const [value, shift] of [[kid, 4], [ctr, 0]]) {
    if (value < 8n) {
      config |= Number(value) << shift;
      continue;
    }
    const field = [];
    for (let rest = value; rest; rest >>= 8n) field.unshift(Number(rest & 255n));
    config |= (8 | (field.length - 1)) << shift;
    tail.push(...field);
  }
  return Uint8Array.of(config, ...tail);
}

/** Return {kid, ctr, size}.   Throws: FrameError; also for a longer form than needed. */
export function parseHeader(bytes) {
  if (!bytes.length) throw new FrameError("malformed");
  let at = 1;
  const values = [bytes[0] >> 4, bytes[0] & 15].map((half) => {
    if (half < 8) return BigInt(half);
    const size = (half & 7) + 1;
    if (at + size > bytes.length) throw new FrameError("malformed");
    let value = 0n;
    for (const end = at + size; at < end; at++) value = (value << 8n) | BigInt(bytes[at]);
    if (value < 8n || value >> BigInt(8 * (size - 1)) === 0n) throw new FrameError("malformed");
    return value;
  });
  return { kid: values[0], ctr: values[1], size: at };
}

/**
 * One publication's frames as they come. Its sender has one KID; the first under which a frame opens is it, and later ones are
 * not looked for: they could be recorded frames of a publication that had the same name.
 */
export class SframeOpener {
  #keysOf;
  #cipher = null;
  #candidate = null; // {kid, cipher}: under which nothing opened yet

  /** `keysOf(kid)` is a promise of {key, salt}. */
  constructor(keysOf) {
    this.#keysOf = keysOf;
  }

  /** Return the frame, null when it came before.   Throws: FrameError. */
  async open(codec, frame) {
    if (this.#cipher) return this.#cipher.open(codec, frame);
    const { kid } = parseHeader(bodyOf(codec, frame));
    if (this.#candidate?.kid !== kid) this.#candidate = { kid, cipher: new SframeCipher(await this.#keysOf(kid), kid) };
    const { cipher } = this.#candidate;
    const opened = await cipher.open(codec, frame);
    this.#cipher = cipher;
    return opened;
  }
}

/** One publication's frames under one KID, in either direction. `codec` is given per frame, since browsers may change it. */
export class SframeCipher {
  #kid;
  #key;
  #salt;
  #ctr = 0n;
  #highest = -1n;
  #seen = 0n;

  constructor({ key, salt }, kid) {
    this.#key = key;
    this.#salt = salt;
    this.#kid = BigInt(kid);
  }

  async seal(codec, frame, { isKeyframe }) {
    const clear = codec === "vp8" ? 1 : 0;
    const ctr = this.#ctr++;
    const header = writeHeader(this.#kid, ctr);
    const how = { name: "AES-GCM", iv: this.#nonce(ctr), additionalData: join(header, frame.subarray(0, clear)) };
    const sealed = new Uint8Array(await crypto.subtle.encrypt(how, this.#key, frame.subarray(clear)));
    const parts = [frame.subarray(0, clear), header, sealed];
    if (codec === "av1") {
      const start = [...(isKeyframe ? EMPTY_SEQUENCE_HEADER : []), (OBU_FRAME << 3) | 2];
      parts[0] = Uint8Array.of(...start, ...leb128(header.length + sealed.length));
    }
    return join(...parts);
  }

  /** Return the frame, null when it came before.   Throws: FrameError. */
  async open(codec, frame) {
    const clear = codec === "vp8" ? 1 : 0;
    const body = bodyOf(codec, frame);
    const { kid, ctr, size } = parseHeader(body);
    if (kid !== this.#kid) throw new FrameError("missing");
    if (body.length < size + TAG_BYTES) throw new FrameError("malformed");
    if (this.#has(ctr)) return null;
    const additionalData = join(body.subarray(0, size), frame.subarray(0, clear));
    const how = { name: "AES-GCM", iv: this.#nonce(ctr), additionalData };
    let plaintext;
    try {
      plaintext = new Uint8Array(await crypto.subtle.decrypt(how, this.#key, body.subarray(size)));
    } catch {
      throw new FrameError("mismatch");
    }
    // Only what was authentic moves the window.
    if (this.#has(ctr)) return null;
    this.#remember(ctr);
    return clear ? join(frame.subarray(0, clear), plaintext) : plaintext;
  }

  #has(ctr) {
    const behind = this.#highest - ctr;
    return behind >= 0n && (behind >= WINDOW || Boolean((this.#seen >> behind) & 1n));
  }

  #remember(ctr) {
    const behind = this.#highest - ctr;
    if (behind >= 0n) {
      this.#seen |= 1n << behind;
      return;
    }
    this.#seen = -behind < WINDOW ? BigInt.asUintN(Number(WINDOW), this.#seen << -behind) | 1n : 1n;
    this.#highest = ctr;
  }

  #nonce(ctr) {
    const nonce = Uint8Array.from(this.#salt);
    for (let at = 11; ctr; at--, ctr >>= 8n) nonce[at] ^= Number(ctr & 255n);
    return nonce;
  }
}

/** Return what of an encoded frame is SFrame's.   Throws: FrameError. */
function bodyOf(codec, frame) {
  return codec === "av1" ? obuFrame(frame) : frame.subarray(codec === "vp8" ? 1 : 0);
}

function join(...parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function leb128(value) {
  const bytes = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

/** Return the payload of the first OBU of type 6; the last OBU may lack its size. */
function obuFrame(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const head = bytes[at];
    at += head & 4 ? 2 : 1;
    let size = bytes.length - at;
    if (head & 2) {
      size = 0;
      for (let shift = 0; ; shift += 7) {
        if (at >= bytes.length || shift > 28) throw new FrameError("malformed");
        size += (bytes[at] & 127) * 2 ** shift;
        if (!(bytes[at++] & 128)) break;
      }
    }
    if (size < 0 || size > bytes.length - at) throw new FrameError("malformed");
    if (((head >> 3) & 15) === OBU_FRAME) return bytes.subarray(at, at + size);
    at += size;
  }
  throw new FrameError("malformed");
}

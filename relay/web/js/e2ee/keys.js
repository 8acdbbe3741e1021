/**
 * Keys of a call, from what people share: a passphrase (LiveKit's format) or the key in a link's fragment (SFrame).
 *
 * The same derivations are in relay/e2ee (livekit_gcm.py, linkkey.py, sframe.py). Nothing here is stored, and fragments are
 * never sent to a server.
 */

const encoder = new TextEncoder();
const EMPTY = new Uint8Array();
const LIVEKIT_SALT = encoder.encode("LKFrameEncryptionKey");
const LIVEKIT_ITERATIONS = 100_000;
const LINK_KEY_BYTES = 32;
const SUITE = 4; // AES_128_GCM_SHA256_128 (RFC 9605 section 4.5)
// 40 bits: short enough that a relay's fail-closed checks see past the header.
const KID_BYTES = 5;

/** What is shared is not whole: {title, text} of errors.js is made of it. */
export class BadSecret extends Error {}

/** Return {format, key | passphrase} of a fragment, null where it names neither.   Throws: BadSecret. */
export function readSecret(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const encoded = fields.get("key");
  const passphrase = fields.get("passphrase");
  if (encoded !== null && passphrase !== null) throw new BadSecret("The link names a key and a passphrase.");
  if (passphrase) return { format: "livekit_gcm", passphrase };
  if (encoded === null) return null;
  const key = fromBase64Url(encoded);
  if (key?.length !== LINK_KEY_BYTES) throw new BadSecret("The key in this link is not whole. Copy the link again.");
  return { format: "sframe", key };
}

/** Return the secret of a new call, for a link. */
export function newSecret() {
  return { format: "sframe", key: crypto.getRandomValues(new Uint8Array(LINK_KEY_BYTES)) };
}

/** Return what a link to the call carries of a secret, as [name, value] for its fragment. */
export function secretField({ format, key, passphrase }) {
  return format === "sframe" ? ["key", toBase64Url(key)] : ["passphrase", passphrase];
}

/**
 * Return a key id for a publication. The relay chooses identities and track sids, so it can give two publications, or one before
 * and after a new connection, the same base key. Keys and nonces are made of the KID too, which nobody chooses.
 */
export function newKid() {
  return crypto.getRandomValues(new Uint8Array(KID_BYTES)).reduce((kid, byte) => kid * 256 + byte, 0);
}

/** Return LiveKit's key of a passphrase.   Spec: LIVEKIT section 4.2. */
export async function passphraseKey(passphrase) {
  const material = await crypto.subtle.importKey("raw", encoder.encode(passphrase), "PBKDF2", false, ["deriveBits"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt: LIVEKIT_SALT, iterations: LIVEKIT_ITERATIONS };
  return aesKey(await crypto.subtle.deriveBits(how, material, 128));
}

/** Return the SFrame base key of one publication of one person. */
export function publicationKey(linkKey, identity, trackSid) {
  return expand(linkKey, encoder.encode(`Veil link key 1\0${identity}\0${trackSid}`), 16);
}

/** Return the key of one person's data packets. */
export async function linkDataKey(linkKey, identity) {
  return aesKey(await expand(linkKey, encoder.encode(`Veil data key 1\0${identity}`), 16));
}

/** Return {key, salt} of a base key under a KID.   Spec: RFC 9605 section 4.4.2. */
export async function sframeKeys(baseKey, kid) {
  const suffix = new Uint8Array(10);
  const view = new DataView(suffix.buffer);
  view.setBigUint64(0, BigInt(kid));
  view.setUint16(8, SUITE);
  const label = (name) => Uint8Array.of(...encoder.encode(`SFrame 1.0 Secret ${name} `), ...suffix);
  const key = await aesKey(await expand(baseKey, label("key"), 16));
  return { key, salt: await expand(baseKey, label("salt"), 12) };
}

/** HKDF-SHA256 with an empty salt, extract and expand at once (RFC 5869). */
async function expand(secret, info, bytes) {
  const material = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const how = { name: "HKDF", hash: "SHA-256", salt: EMPTY, info };
  return new Uint8Array(await crypto.subtle.deriveBits(how, material, 8 * bytes));
}

function aesKey(raw) {
  return crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]);
}

function toBase64Url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function fromBase64Url(text) {
  try {
    return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

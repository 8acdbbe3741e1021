/**
 * Seals and opens encoded frames, off the page's thread. A frame without a key goes nowhere: neither out in clear, nor, sealed,
 * into a decoder.
 *
 * In:  {type: "secret", secret}                              what the people of the call share (keys.js)
 *      {type: "stream", id, identity, trackSid, codec, kid}  whose publication a transform carries; parts may come one by one;
 *                                                          `kid`: SFrame, of what is sent; each is used for one key, once
 *      {type: "forget", id}
 * Out: {id, done, failed, repeated, dropped, reason}         counts so far, when they changed, at most four times a second
 * A transform's options are {id, direction: "send" | "receive"}.
 */

import { FrameError } from "./errors.js";
import { passphraseKey, publicationKey, sframeKeys } from "./keys.js";
import { LivekitCipher } from "./livekit.js";
import { SframeCipher, SframeOpener } from "./sframe.js";

const REPORT_MS = 250;

const streams = new Map();
let secret = null;
let passphrase = null; // Promise of its key: deriving one takes 100,000 rounds.

function streamOf(id) {
  if (!streams.has(id)) {
    const counts = { done: 0, failed: 0, repeated: 0, dropped: 0, reason: "" };
    streams.set(id, { id, identity: "", trackSid: "", codec: "", kid: null, cipher: null, counts, told: "" });
  }
  return streams.get(id);
}

/** Return the cipher of a stream, null while something is missing for it. */
function cipherOf(stream, direction) {
  if (stream.cipher || !secret) return stream.cipher;
  if (secret.format === "livekit_gcm") {
    passphrase ??= passphraseKey(secret.passphrase);
    stream.cipher = passphrase.then((key) => new LivekitCipher(key));
  } else if (stream.identity && stream.trackSid) {
    const base = publicationKey(secret.key, stream.identity, stream.trackSid);
    const keysOf = async (kid) => sframeKeys(await base, kid);
    if (direction === "receive") {
      stream.cipher = new SframeOpener(keysOf);
    } else if (stream.kid !== null) {
      const { kid } = stream;
      // Its counter begins once: whoever wants another cipher has to bring another KID.
      stream.kid = null;
      stream.cipher = keysOf(kid).then((keys) => new SframeCipher(keys, kid));
    }
  }
  return stream.cipher;
}

async function transform(stream, direction, frame, controller) {
  const { counts } = stream;
  // Discontinuous transmission: there is nothing to hide in no bytes.
  if (frame.data.byteLength === 0) {
    controller.enqueue(frame);
    return;
  }
  const metadata = frame.getMetadata();
  const codec = (metadata.mimeType ?? stream.codec).split("/").pop().toLowerCase();
  const cipher = await cipherOf(stream, direction);
  if (!cipher || !codec) {
    counts.dropped++;
    counts.reason = "missing";
    return;
  }
  const data = new Uint8Array(frame.data);
  try {
    const facts = {
      isKeyframe: frame.type === "key",
      ssrc: metadata.synchronizationSource,
      timestamp: metadata.rtpTimestamp ?? frame.timestamp,
    };
    const result = await (direction === "send" ? cipher.seal(codec, data, facts) : cipher.open(codec, data));
    if (result === null) {
      counts.repeated++;
      return;
    }
    frame.data = result.buffer.byteLength === result.length ? result.buffer : result.slice().buffer;
    counts.done++;
    counts.reason = "";
    controller.enqueue(frame);
  } catch (error) {
    if (!(error instanceof FrameError)) throw error;
    counts.failed++;
    counts.reason = error.reason;
  }
}

self.onrtctransform = ({ transformer }) => {
  const { id, direction } = transformer.options;
  const stream = streamOf(id);
  const frames = new TransformStream({
    transform: (frame, controller) => transform(stream, direction, frame, controller),
  });
  // Ends with its connection.
  transformer.readable.pipeThrough(frames).pipeTo(transformer.writable).catch(() => streams.delete(id));
};

self.onmessage = ({ data: message }) => {
  if (message.type === "secret") {
    secret = message.secret;
    passphrase = null;
    for (const stream of streams.values()) stream.cipher = null;
  } else if (message.type === "stream") {
    const stream = streamOf(message.id);
    const { identity = stream.identity, trackSid = stream.trackSid, codec = stream.codec, kid = stream.kid } = message;
    if (identity !== stream.identity || trackSid !== stream.trackSid) stream.cipher = null;
    Object.assign(stream, { identity, trackSid, codec, kid });
  } else if (message.type === "forget") {
    streams.delete(message.id);
  }
};

setInterval(() => {
  for (const stream of streams.values()) {
    const told = JSON.stringify(stream.counts);
    if (told === stream.told) continue;
    stream.told = told;
    self.postMessage({ id: stream.id, ...stream.counts });
  }
}, REPORT_MS);

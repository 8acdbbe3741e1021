// The end-to-end encryption worker of livekit-client under Node, frame by frame: one JSON line in, one out.
// node livekit_frames.mjs WORKER SECRET [HKDF]; the secret is a passphrase, or hex with HKDF, which livekit-client takes for raw keys.
// A line is {operation: encode | decode, codec, kind, ssrc, timestamp, type, data: hex}, or {operation: seal | open, data, iv,
// key_index} for data packets, or {operation: ratchet}.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import vm from 'node:vm';
import { webcrypto } from 'node:crypto';

const [workerPath, secret, kdf = 'PBKDF2'] = process.argv.slice(2);
const IDENTITY = 'ana';
const noise = [];

// What a browser's worker scope gives it; frames are told apart by having a type.
globalThis.self = globalThis;
globalThis.onmessage = null;
globalThis.crypto ??= webcrypto;
globalThis.postMessage = (message) => noise.push(message);
vm.runInThisContext(readFileSync(workerPath, 'utf8'), workerPath);
const tell = (kind, data) => globalThis.onmessage({ data: { kind, data } });

tell('init', {
  loglevel: 'warn',
  keyProviderOptions: {
    sharedKey: true, ratchetSalt: 'LKFrameEncryptionKey', ratchetWindowSize: 0, failureTolerance: -1, keyringSize: 16, keySize: 128,
  },
});
const material = kdf === 'HKDF' ? Buffer.from(secret, 'hex') : new TextEncoder().encode(secret);
const key = await webcrypto.subtle.importKey('raw', material, kdf, false, ['deriveBits', 'deriveKey']);
tell('setKey', { key, keyIndex: 0, isPublisher: true, updateCurrentKeyIndex: true });
tell('enable', { enabled: true, participantIdentity: IDENTITY });
await new Promise((resolve) => setTimeout(resolve, 300));

const tracks = new Map();
function track(operation, codec, kind) {
  const name = `${operation}-${codec}`;
  if (!tracks.has(name)) {
    let feed;
    const readableStream = new ReadableStream({ start: (controller) => { feed = controller; } });
    const out = [];
    const writableStream = new WritableStream({ write: (frame) => { out.push(frame); } });
    tell(operation, { participantIdentity: IDENTITY, trackId: name, codec: kind === 'video' ? codec : undefined, readableStream, writableStream });
    tracks.set(name, { feed, out });
  }
  return tracks.get(name);
}

const hex = (buffer) => Buffer.from(buffer).toString('hex');
async function until(found) {
  for (let turns = 0; turns < 200 && found() === undefined; turns += 1) await new Promise((resolve) => setTimeout(resolve, 1));
  return found();
}

let requests = 0;
async function data(asked) {
  const uuid = String(requests += 1);
  const kind = asked.operation === 'seal' ? 'encryptDataRequest' : 'decryptDataRequest';
  const bytes = (text) => new Uint8Array(Buffer.from(text ?? '', 'hex'));
  tell(kind, { uuid, participantIdentity: IDENTITY, payload: bytes(asked.data), iv: bytes(asked.iv), keyIndex: asked.key_index });
  const answer = await until(() => noise.find((message) => message.data?.uuid === uuid));
  if (answer === undefined || answer.kind === 'error') return { data: null };
  const { payload, iv, keyIndex } = answer.data;
  return { data: hex(payload), iv: iv && hex(iv), key_index: keyIndex };
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  if (asked.operation === 'seal' || asked.operation === 'open') {
    console.log(JSON.stringify(await data(asked)));
    continue;
  }
  if (asked.operation === 'ratchet') {
    // A shared key ratchets without a message back.
    tell('ratchetRequest', { keyIndex: 0 });
    await new Promise((resolve) => setTimeout(resolve, 200));
    console.log('{}');
    continue;
  }
  const { feed, out } = track(asked.operation, asked.codec, asked.kind);
  const bytes = Buffer.from(asked.data, 'hex');
  const frame = {
    data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    timestamp: asked.timestamp,
    getMetadata: () => ({ synchronizationSource: asked.ssrc, payloadType: 0 }),
  };
  if (asked.kind === 'video') frame.type = asked.type;
  // Streams take turns of the loop to set up; a frame given before would wait, which is fine.
  await new Promise((resolve) => setTimeout(resolve, 1));
  feed.enqueue(frame);
  await until(() => out[0]);
  const got = out.shift();
  console.log(JSON.stringify({ data: got ? hex(got.data) : null, noise: noise.splice(0).filter((m) => m.kind === 'error').length }));
}
process.exit(0);

// The end-to-end encryption worker of livekit-client under Node, frame by frame: one JSON line in, one out.
// node livekit_frames.mjs WORKER PASSPHRASE; a line is {operation, codec, kind, ssrc, timestamp, type, data: hex}.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import vm from 'node:vm';
import { webcrypto } from 'node:crypto';

const [workerPath, passphrase] = process.argv.slice(2);
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
const key = await webcrypto.subtle.importKey('raw', new TextEncoder().encode(passphrase), 'PBKDF2', false, ['deriveBits', 'deriveKey']);
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
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const { feed, out } = track(asked.operation, asked.codec, asked.kind);
  const bytes = Buffer.from(asked.data, 'hex');
  const frame = {
    data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    timestamp: asked.timestamp,
    getMetadata: () => ({ synchronizationSource: asked.ssrc, payloadType: 0 }),
  };
  if (asked.kind === 'video') frame.type = asked.type;
  // Streams take turns of the loop to set up; a frame given before would wait, which is fine.
  await new Promise((resolve) => setTimeout(resolve, 10));
  feed.enqueue(frame);
  for (let turns = 0; turns < 20 && out.length === 0; turns += 1) await new Promise((resolve) => setTimeout(resolve, 10));
  const got = out.shift();
  console.log(JSON.stringify({ data: got ? hex(got.data) : null, noise: noise.splice(0).filter((m) => m.kind === 'error').length }));
}
process.exit(0);

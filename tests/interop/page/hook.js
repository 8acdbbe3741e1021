// Runs before the built-in page's own scripts and only watches: its connections, its frames, its stage. What the page
// shows is read from the document; what it received from getStats, as with any other client.

'use strict';

window.watch = {
  connections: [],
  channels: {},
  identities: {}, // participant sid → identity
  me: '',
  seen: [],
  audioOf: new Map(), // receiver → participant sid
  // What the page is made to send, null for what it would: {constraints, mime, fmtp, encodings}.
  video: null,

  note(what, identity, detail = '') {
    this.seen.push({at_ms: Date.now(), what, identity, detail});
  },

  async state() {
    const received = {};
    const of = (identity) => (received[identity] ??= {audio_packets: 0, audio_energy: 0, frames_decoded: 0, width: 0});
    for (const tile of document.querySelectorAll('#stage li[data-identity]:not(.is-local)')) {
      const mine = of(tile.dataset.identity);
      const track = tile.querySelector('video').srcObject?.getVideoTracks()[0];
      for (const s of await this.inbound((receiver) => receiver.track === track)) {
        mine.frames_decoded += s.framesDecoded ?? 0;
        mine.width = s.frameWidth ?? 0;
      }
    }
    for (const [receiver, sid] of this.audioOf) {
      const mine = of(this.identities[sid] ?? sid);
      for (const s of await this.inbound((other) => other === receiver)) {
        mine.audio_packets += s.packetsReceived ?? 0;
        mine.audio_energy += s.totalAudioEnergy ?? 0;
      }
    }
    const isIn = document.body.dataset.screen === 'call';
    return {connection: isIn ? 'connected' : 'disconnected', received, seen: this.seen};
  },

  async inbound(wanted) {
    const found = [];
    for (const pc of this.connections) {
      for (const receiver of pc.getReceivers().filter(wanted)) {
        (await receiver.getStats()).forEach((s) => s.type === 'inbound-rtp' && found.push(s));
      }
    }
    return found;
  },

  async outbound(kind) {
    const found = [];
    for (const pc of this.connections) {
      if (pc.connectionState === 'closed') continue;
      const report = await pc.getStats();
      report.forEach((s) => s.type === 'outbound-rtp' && s.kind === kind && found.push({...s, source: report.get(s.mediaSourceId)}));
    }
    return found;
  },

  async sent() {
    const found = [];
    for (const s of await this.outbound('video')) {
      const layers = Number(/^L(\d)T/.exec(s.scalabilityMode ?? '')?.[1] ?? 1);
      // Chromium counts every spatial layer as a frame, however many are on; the camera's frames are an upper bound.
      const frames = layers > 1 ? s.source.frames : s.framesSent;
      for (let layer = 0; layer < layers; layer++) {
        found.push({rid: s.rid ?? '', width: (s.frameWidth ?? 0) >> layer, frames: frames ?? 0});
      }
    }
    return found;
  },

  async audioPacketsSent() {
    return (await this.outbound('audio')).reduce((sum, s) => sum + (s.packetsSent ?? 0), 0);
  },

  // The page's own encryption of data under what was typed as passphrase, null without one.
  async seal() {
    const passphrase = document.getElementById('join-passphrase').value;
    if (!passphrase) return null;
    const {E2ee} = await import('/js/e2ee/e2ee.js');
    this.e2ee ??= new E2ee({format: 'livekit_gcm', passphrase}, {onLock() {}, onSealed() {}, onLeak() {}});
    return this.e2ee;
  },

  // Data in the page's own codec over the page's own channels; typing into the chat is the browser tests' business.
  async sendData(text) {
    const {encodePacket, encodePayload} = await import('/js/datapacket.js');
    const e2ee = await this.seal();
    for (const [label, kind, prefix] of [['_reliable', 'RELIABLE', 'r:'], ['_lossy', 'LOSSY', 'l:']]) {
      const user = {payload: new TextEncoder().encode(prefix + text), topic: 'interop'};
      const content = e2ee ? {encrypted: await e2ee.sealData(this.me, encodePayload({user}))} : {user};
      this.channels[label].send(encodePacket({kind, ...content}));
    }
  },

  async onData(data) {
    const {decodePacket, decodePayload} = await import('/js/datapacket.js');
    const packet = decodePacket(data);
    let user = packet?.user;
    if (packet?.encrypted) {
      const payload = await (await this.seal())?.openData(packet.participantIdentity, packet.encrypted);
      user = payload ? decodePayload(payload)?.user : null;
    }
    if (user) this.note('data', packet.participantIdentity, new TextDecoder().decode(user.payload));
  },

  onSignal(text) {
    const message = JSON.parse(text);
    const infos = [...(message.join?.otherParticipants ?? []), ...(message.update?.participants ?? [])];
    for (const {sid, identity} of infos) this.identities[sid] = identity;
    this.me = message.join?.participant.identity ?? this.me;
  },

  // The stage is what a person sees; a change of it is what "seen" means here.
  onStage(before) {
    const now = new Map();
    for (const tile of document.querySelectorAll('#stage li[data-identity]:not(.is-local)')) {
      now.set(tile.dataset.identity, tile.classList.contains('is-muted'));
    }
    for (const [identity, isMuted] of now) {
      if (!before.has(identity)) this.note('joined', identity);
      else if (before.get(identity) !== isMuted) this.note(isMuted ? 'muted' : 'unmuted', identity, 'audio');
    }
    for (const identity of before.keys()) if (!now.has(identity)) this.note('left', identity);
    return now;
  },
};

{
  const {watch} = window;
  const Connection = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Connection {
    constructor(...options) {
      super(...options);
      watch.connections.push(this);
      this.addEventListener('track', ({receiver, streams}) => {
        if (receiver.track.kind === 'audio') watch.audioOf.set(receiver, streams[0]?.id.split('|')[0]);
      });
      this.addEventListener('datachannel', ({channel}) => {
        channel.addEventListener('message', ({data}) => data instanceof ArrayBuffer && watch.onData(data));
      });
    }

    addTransceiver(track, options) {
      const {video} = watch;
      if (!video || (track.kind ?? track) !== 'video' || !options.sendEncodings) return super.addTransceiver(track, options);
      const sendEncodings = video.encodings ?? options.sendEncodings;
      const transceiver = super.addTransceiver(track, {...options, sendEncodings});
      const {codecs} = RTCRtpSender.getCapabilities('video');
      const wanted = codecs.filter((codec) => codec.mimeType === video.mime && (codec.sdpFmtpLine ?? '').includes(video.fmtp ?? ''));
      const rest = codecs.filter((codec) => codec.mimeType !== video.mime);
      transceiver.setCodecPreferences([...wanted, ...rest]);
      return transceiver;
    }

    createDataChannel(label, options) {
      return (watch.channels[label] = super.createDataChannel(label, options));
    }
  };
  const Socket = window.WebSocket;
  window.WebSocket = class extends Socket {
    constructor(...options) {
      super(...options);
      this.addEventListener('message', ({data}) => typeof data === 'string' && watch.onSignal(data));
    }
  };
  const devices = navigator.mediaDevices;
  const open = devices?.getUserMedia.bind(devices);
  if (open) {
    devices.getUserMedia = (wanted) => {
      const constraints = wanted.video ? watch.video?.constraints : null;
      return open(constraints ? {...wanted, video: {...wanted.video, ...constraints}} : wanted);
    };
  }
  document.addEventListener('DOMContentLoaded', () => {
    let shown = new Map();
    const look = () => (shown = watch.onStage(shown));
    const wanted = {childList: true, subtree: true, attributes: true, attributeFilter: ['class', 'data-identity']};
    new MutationObserver(look).observe(document.getElementById('stage'), wanted);
  });
}

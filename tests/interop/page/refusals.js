// An app as people write them on livekit-client: it shows what its promises are rejected with, what the server tells it in
// data messages of topic veil.notice, and which of its tracks are on. Nothing in it knows of tiers.

'use strict';

const {Room, RoomEvent, Track} = LivekitClient;
const workers = {
  // livekit-client's own, and one that says it encrypts and does not.
  honest: '/bundle/livekit-client.e2ee.worker.js',
  broken: '/page/passing-worker.js',
};

class Call {
  constructor(title) {
    this.said = [];
    this.card = document.createElement('article');
    this.card.append(Object.assign(document.createElement('h2'), {textContent: title}));
    document.querySelector('main').append(this.card);
  }

  show(kind, from, text) {
    this.said.push({from, text, at_ms: Date.now()});
    const line = Object.assign(document.createElement('p'), {className: kind, textContent: text});
    line.dataset.from = from;
    this.card.append(line);
  }

  async connect(url, token, {passphrase, worker = 'honest'} = {}) {
    let encryption;
    if (passphrase) {
      const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
      await keyProvider.setKey(passphrase);
      encryption = {keyProvider, worker: new Worker(workers[worker])};
    }
    this.room = new Room({encryption});
    this.room.on(RoomEvent.DataReceived, (payload, participant, kind, topic, type, identity) => {
      if (topic === 'veil.notice' && !identity) this.show('told', 'veil.notice', new TextDecoder().decode(payload));
    });
    this.room.on(RoomEvent.LocalTrackPublished, (p) => this.show('state', 'app', `Your ${p.source} is on.`));
    this.room.on(RoomEvent.LocalTrackUnpublished, (p) => this.show('state', 'app', `Your ${p.source} is off.`));
    try {
      if (encryption) await this.room.setE2EEEnabled(true);
      await this.room.connect(url, token);
      this.show('state', 'app', 'You are in the call.');
      this.room.on(RoomEvent.Disconnected, () => this.show('state', 'app', 'You are out of the call.'));
    } catch (error) {
      this.show('told', 'connect', error.message);
    }
  }

  turnOn(source) {
    const on = {
      microphone: () => this.room.localParticipant.setMicrophoneEnabled(true),
      camera: () => this.room.localParticipant.setCameraEnabled(true),
    };
    on[source]().catch((error) => this.show('told', source, error.message));
  }

  say(text) {
    this.room.localParticipant
      .publishData(new TextEncoder().encode(text), {reliable: true})
      .catch((error) => this.show('told', 'publishData', error.message));
  }
}

window.calls = {};
window.app = {
  async join(name, title, url, token, options) {
    calls[name] = new Call(title);
    await calls[name].connect(url, token, options ?? {});
  },
  turnOn: (name, source) => calls[name].turnOn(source),
  say: (name, text) => calls[name].say(text),
  said: (name) => calls[name].said,
  async leave() {
    await Promise.all(Object.values(calls).map((call) => call.room.disconnect()));
  },
};
document.getElementById('version').textContent = LivekitClient.version;

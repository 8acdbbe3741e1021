// Drives livekit-client for the interop tests: window.client is called by the driver and answers with plain JSON.

'use strict';

const {Room, RoomEvent, Track, VideoQuality} = LivekitClient;

const client = {
  room: null,
  seen: [],

  note(what, identity, detail = '') {
    this.seen.push({at_ms: Date.now(), what, identity: identity ?? '', detail});
  },

  async join(url, token, passphrase) {
    let encryption;
    if (passphrase) {
      const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
      await keyProvider.setKey(passphrase);
      encryption = {keyProvider, worker: new Worker('/bundle/livekit-client.e2ee.worker.js')};
    }
    const room = new Room({encryption});
    if (passphrase) await room.setE2EEEnabled(true);
    this.room = room;
    this.seen = [];
    room.on(RoomEvent.ParticipantConnected, (p) => this.note('joined', p.identity));
    room.on(RoomEvent.ParticipantDisconnected, (p) => this.note('left', p.identity));
    room.on(RoomEvent.TrackMuted, (pub, p) => this.note('muted', p.identity, pub.kind));
    room.on(RoomEvent.TrackUnmuted, (pub, p) => this.note('unmuted', p.identity, pub.kind));
    room.on(RoomEvent.DataReceived, (payload, p) => this.note('data', p?.identity, new TextDecoder().decode(payload)));
    room.on(RoomEvent.ConnectionQualityChanged, (quality, p) => this.note('quality', p.identity, quality));
    room.on(RoomEvent.Reconnecting, () => this.note('reconnecting', ''));
    room.on(RoomEvent.SignalReconnecting, () => this.note('resuming', ''));
    room.on(RoomEvent.Reconnected, () => this.note('back', '', room.localParticipant.sid));
    room.on(RoomEvent.Disconnected, (reason) => this.note('disconnected', '', String(reason)));
    room.on(RoomEvent.TrackSubscriptionFailed, (sid, p) => this.note('subscription failed', p?.identity, sid));
    // Chromium decodes only what something plays, and counts the energy only of sound that is not muted.
    room.on(RoomEvent.TrackSubscribed, (track) => {
      const element = track.attach();
      document.body.append(element);
      element.play().catch(() => {});
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
    await room.connect(url, token);
    for (const p of room.remoteParticipants.values()) this.note('joined', p.identity);
  },

  // options: TrackPublishOptions; the simulcast layers below the picture as [width, height, bitrate, fps].
  async publish(audio, video, width, height, fps, options = {}) {
    const local = this.room.localParticipant;
    const layers = options.videoSimulcastLayers?.map((layer) => new LivekitClient.VideoPreset(...layer));
    const chosen = layers ? {...options, videoSimulcastLayers: layers} : options;
    if (audio) await local.setMicrophoneEnabled(true);
    if (video) await local.setCameraEnabled(true, {resolution: {width, height, frameRate: fps}}, chosen);
  },

  async sendData(text) {
    const encode = (s) => new TextEncoder().encode(s);
    await this.room.localParticipant.publishData(encode('r:' + text), {reliable: true});
    await this.room.localParticipant.publishData(encode('l:' + text), {reliable: false});
  },

  // Numbered reliable messages, so many a second; what went wrong is told by streamed().
  stream(prefix, count, perSecond) {
    const local = this.room.localParticipant;
    const stream = {sent: 0, problem: '', done: false};
    this.streaming = stream;
    (async () => {
      const begun = performance.now();
      const sends = [];
      for (let n = 0; n < count; n += 1) {
        const wait = begun + (n * 1000) / perSecond - performance.now();
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        sends.push(local.publishData(new TextEncoder().encode(`${prefix}${n}`), {reliable: true}));
        stream.sent += 1;
      }
      await Promise.all(sends);
    })().catch((error) => (stream.problem = String(error))).finally(() => (stream.done = true));
  },

  streamed() {
    return this.streaming;
  },

  // The longest pause between two frames of this participant's camera since it is watched, in ms.
  watch(identity) {
    this.watchFrames(identity);
  },

  longestGap() {
    return Math.max(this.watched.longest_gap_ms, performance.now() - this.watched.last_ms);
  },

  async mute(muted) {
    const at = Date.now();
    await this.room.localParticipant.setMicrophoneEnabled(!muted);
    return at;
  },

  async sent() {
    const publication = this.room.localParticipant.getTrackPublication(Track.Source.Camera);
    const report = await publication.track.sender.getStats();
    const encodings = [];
    report.forEach((s) => {
      if (s.type === 'outbound-rtp') encodings.push({rid: s.rid ?? '', width: s.frameWidth ?? 0, frames: s.framesSent ?? 0});
    });
    return encodings;
  },

  async audioPacketsSent() {
    const publication = this.room.localParticipant.getTrackPublication(Track.Source.Microphone);
    let packets = 0;
    (await publication.track.sender.getStats()).forEach((s) => {
      if (s.type === 'outbound-rtp') packets += s.packetsSent ?? 0;
    });
    return packets;
  },

  async state() {
    const received = {};
    for (const p of this.room.remoteParticipants.values()) {
      const mine = {audio_packets: 0, audio_energy: 0, frames_decoded: 0, width: 0};
      for (const publication of p.trackPublications.values()) {
        const report = await publication.track?.getRTCStatsReport();
        report?.forEach((s) => {
          if (s.type !== 'inbound-rtp') return;
          if (s.kind === 'audio') {
            mine.audio_packets += s.packetsReceived ?? 0;
            mine.audio_energy += s.totalAudioEnergy ?? 0;
          } else {
            mine.frames_decoded += s.framesDecoded ?? 0;
            mine.width = s.frameWidth ?? 0;
          }
        });
      }
      received[p.identity] = mine;
    }
    return {connection: this.room.state, received, seen: this.seen};
  },

  // What a stream of frames is judged by. A gap lies between two frames that were shown, or the last one and now.
  watchFrames(identity) {
    const track = this.room.remoteParticipants.get(identity).getTrackPublication(Track.Source.Camera).track;
    const element = track.attachedElements[0];
    const watched = {track, last_ms: performance.now(), longest_gap_ms: 0, shown: 0};
    const onFrame = (now) => {
      watched.longest_gap_ms = Math.max(watched.longest_gap_ms, now - watched.last_ms);
      watched.last_ms = now;
      watched.shown += 1;
      if (this.watched === watched) element.requestVideoFrameCallback(onFrame);
    };
    this.watched = watched;
    element.requestVideoFrameCallback(onFrame);
  },

  async frames() {
    const {track, last_ms, longest_gap_ms, shown} = this.watched;
    let inbound = {};
    (await track.getRTCStatsReport()).forEach((s) => s.type === 'inbound-rtp' && (inbound = s));
    return {
      shown,
      longest_gap_ms: Math.max(longest_gap_ms, performance.now() - last_ms),
      decoded: inbound.framesDecoded ?? 0,
      buffered_s: inbound.jitterBufferDelay ?? 0,
      keyframes: inbound.keyFramesDecoded ?? 0,
      width: inbound.frameWidth ?? 0,
      freezes: inbound.freezeCount ?? 0,
      frozen_s: inbound.totalFreezesDuration ?? 0,
      packets: inbound.packetsReceived ?? 0,
      lost: inbound.packetsLost ?? 0,
      repaired: inbound.retransmittedPacketsReceived ?? 0,
      nacks: inbound.nackCount ?? 0,
      plis: inbound.pliCount ?? 0,
    };
  },

  async outbound() {
    const publication = this.room.localParticipant.getTrackPublication(Track.Source.Camera);
    const encodings = [];
    (await publication.track.sender.getStats()).forEach((s) => {
      if (s.type !== 'outbound-rtp') return;
      encodings.push({
        width: s.frameWidth ?? 0,
        frames: s.framesSent ?? 0,
        packets: s.packetsSent ?? 0,
        repaired: s.retransmittedPacketsSent ?? 0,
        nacks: s.nackCount ?? 0,
        plis: s.pliCount ?? 0,
        limited: s.qualityLimitationReason ?? '',
      });
    });
    return encodings;
  },

  wantQuality(identity, quality) {
    const p = this.room.remoteParticipants.get(identity);
    const wanted = {low: VideoQuality.LOW, medium: VideoQuality.MEDIUM, high: VideoQuality.HIGH}[quality];
    p.getTrackPublication(Track.Source.Camera).setVideoQuality(wanted);
  },

  async leave() {
    const at = Date.now();
    await this.room.disconnect();
    document.body.replaceChildren();
    return at;
  },
};

window.client = client;

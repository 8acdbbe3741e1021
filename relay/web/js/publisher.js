/** What this person sends: the peer connection for which we offer, its tracks and the data channels towards the relay. */

import { Demand, layersOf, qualitiesOf, videoEncodings } from "./encodings.js";
import { SignalRefused } from "./errors.js";
import { Sent } from "./reliable.js";

const ANSWER_TIMEOUT_MS = 15_000;
// Speech in mono; Opus gains little above.
const AUDIO_BPS = 40_000;
const SOURCES = {
  microphone: { type: "AUDIO", source: "MICROPHONE", stream: "camera" },
  camera: { type: "VIDEO", source: "CAMERA", stream: "camera" },
  screenShare: { type: "VIDEO", source: "SCREEN_SHARE", stream: "screen" },
};

export class Publisher {
  #signal;
  #pc;
  #onFailed;
  #publications = new Map(); // source → {cid, sid, transceiver, muted, request, demand}
  #sent;
  #offerId = 0;
  #answer = null; // {id, resolve}
  #isDirty = false;
  #isNegotiating = false;
  #isCut = false; // Nobody hears what is said.
  #isRestarting = false; // The next offer brings new ICE credentials.
  #e2ee;
  #identity;

  constructor({ signal, iceServers, e2ee, identity, onState, onFailed }) {
    this.#signal = signal;
    this.#e2ee = e2ee;
    this.#identity = identity;
    this.#onFailed = onFailed;
    this.#pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle", ...e2ee.configuration });
    this.#pc.onconnectionstatechange = () => onState(this.#pc.connectionState);
    this.#sent = new Sent(this.#pc.createDataChannel("_reliable", { ordered: true }));
    this.#pc.createDataChannel("_lossy", { ordered: false, maxRetransmits: 0 });
  }

  /** Negotiate now, so that the data channels are there when they are needed. */
  open() {
    this.#negotiate();
  }

  /** Bring what is sent from this source in line with a track (null: none) and whether it is on. Idempotent. */
  sync(source, track, isOn) {
    const publication = this.#publications.get(source);
    if (!publication) {
      if (track && isOn) this.#publish(source, track);
      return;
    }
    if (source === "screenShare" && !track) {
      this.#unpublish(source, publication);
      return;
    }
    const { sender } = publication.transceiver;
    if (sender.track !== track) sender.replaceTrack(track).catch(this.#onFailed);
    this.#mute(publication, !isOn);
  }

  /** Take the sid of a track that was announced. */
  onPublished({ cid, track }) {
    const publication = [...this.#publications.values()].find((candidate) => candidate.cid === cid);
    if (!publication) return;
    publication.sid = track.sid;
    const announcement = this.#e2ee.begin(cid, this.#identity, track.sid);
    if (announcement) this.send(announcement);
    const { muted } = publication;
    publication.muted = Boolean(track.muted);
    this.#mute(publication, muted);
  }

  /** Take back a track that the relay refused; returns its source. */
  onRefused({ cid }) {
    for (const [source, publication] of this.#publications) {
      if (publication.cid !== cid) continue;
      this.#unpublish(source, publication);
      return source;
    }
    return "";
  }

  onAnswer({ sdp, id = 0 }) {
    if (this.#answer && (id === this.#answer.id || id === 0)) this.#answer.resolve(sdp);
  }

  /** Take which qualities of a track anybody sees. */
  onWanted(update) {
    this.#bySid(update.trackSid)?.demand?.want(qualitiesOf(update));
  }

  /** Take back a track that the relay ended; returns its source. */
  onUnpublished({ trackSid }) {
    return this.onRefused(this.#bySid(trackSid) ?? {});
  }

  /** Find our tracks in the roster, where the answer to their announcement was lost. */
  onRoster(tracks) {
    for (const publication of this.#publications.values()) {
      const track = publication.sid ? null : tracks.find(({ mid }) => mid && mid === publication.transceiver.mid);
      if (track) this.onPublished({ cid: publication.cid, track });
    }
  }

  /** Send a data packet reliably, once the channel is open. */
  send(packet) {
    this.#sent.send(packet);
  }

  /** Make no offers until `resume`: nobody would answer. */
  pause() {
    this.#isCut = true;
    this.#answer?.resolve(null);
  }

  /** Go on over another socket, over whatever network there is now. The relay has had data up to this sequence. */
  resume(iceServers, lastSequence) {
    this.#isCut = false;
    this.#isRestarting = true;
    this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers });
    this.#sent.resend(lastSequence);
    this.#negotiate();
  }

  /** What the relay is told on resuming of what we publish. */
  published() {
    return [...this.#publications.values()].filter(({ sid }) => sid).map(({ cid, sid }) => ({ cid, track: { sid } }));
  }

  /** Send no more of a track; returns its source. */
  stop(cid) {
    return this.onRefused({ cid });
  }

  /** Return {report, sourceByMid}: what the browser counts, and which video a section carries. */
  async inspect() {
    const sourceByMid = {};
    for (const [source, { transceiver }] of this.#publications) {
      if (source !== "microphone" && transceiver.mid !== null) sourceByMid[transceiver.mid] = SOURCES[source].source.toLowerCase();
    }
    return { report: await this.#pc.getStats(), sourceByMid };
  }

  close() {
    this.#pc.onconnectionstatechange = null;
    this.#pc.close();
  }

  #publish(source, track) {
    const { type, source: name, stream } = SOURCES[source];
    const { width = 1280, height = 720 } = track.getSettings();
    const encodings = type === "AUDIO" ? [{ maxBitrate: AUDIO_BPS }] : videoEncodings(source, width, height);
    const request = { cid: track.id, name: source, type, source: name, stream, ...this.#e2ee.announcement };
    if (type === "VIDEO") Object.assign(request, { width, height, layers: layersOf(encodings, width, height) });
    const transceiver = this.#pc.addTransceiver(track, {
      direction: "sendonly",
      streams: [new MediaStream([track])],
      sendEncodings: encodings,
    });
    this.#e2ee.protect(transceiver.sender, track.id);
    const demand = type === "VIDEO" ? new Demand(transceiver.sender) : null;
    this.#publications.set(source, { cid: track.id, sid: "", transceiver, muted: false, request, demand });
    this.#signal.send({ addTrack: request });
    this.#negotiate();
  }

  // There is no message for it: the relay sees in the offer that nothing is sent any more.
  #unpublish(source, publication) {
    this.#publications.delete(source);
    publication.transceiver.sender.replaceTrack(null).catch(() => {});
    publication.transceiver.direction = "inactive";
    this.#negotiate();
  }

  #bySid(sid) {
    return [...this.#publications.values()].find((publication) => sid && publication.sid === sid);
  }

  /** Say again what the relay may not have heard, once it has told what it knows. */
  #repeat() {
    for (const { sid, muted, request } of this.#publications.values()) {
      this.#signal.send(sid ? { mute: { sid, muted } } : { addTrack: request });
    }
  }

  #mute(publication, muted) {
    if (publication.muted === muted) return;
    publication.muted = muted;
    if (publication.sid) this.#signal.send({ mute: { sid: publication.sid, muted } });
  }

  /** One offer at a time; what is asked for meanwhile goes into the next. */
  async #negotiate() {
    this.#isDirty = true;
    if (this.#isNegotiating) return;
    this.#isNegotiating = true;
    try {
      while (this.#isDirty && !this.#isCut && this.#pc.signalingState !== "closed") {
        // Tracks that are published in the same turn share one offer.
        await Promise.resolve();
        this.#isDirty = false;
        const iceRestart = this.#isRestarting;
        await this.#pc.setLocalDescription(await this.#pc.createOffer({ iceRestart }));
        const id = ++this.#offerId;
        const answered = this.#isCut ? null : this.#answerTo(id);
        this.#signal.send({ offer: { type: "offer", sdp: this.#pc.localDescription.sdp, id } });
        const sdp = await answered;
        if (this.#pc.signalingState === "closed") return;
        if (sdp === null) {
          // Cut off: what this offer said goes into the next.
          this.#isDirty = true;
          continue;
        }
        await this.#pc.setRemoteDescription({ type: "answer", sdp });
        this.#e2ee.negotiated();
        if (!iceRestart) continue;
        this.#isRestarting = false;
        this.#repeat();
      }
    } catch (error) {
      if (this.#pc.signalingState !== "closed") this.#onFailed(error);
    } finally {
      this.#isNegotiating = false;
    }
  }

  #answerTo(id) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new SignalRefused("no answer", 0)), ANSWER_TIMEOUT_MS);
      this.#answer = {
        id,
        resolve: (sdp) => {
          clearTimeout(timer);
          this.#answer = null;
          resolve(sdp);
        },
      };
    });
  }
}

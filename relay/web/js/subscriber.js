/** What others send: the peer connection for which the relay offers, its tracks and the data channels from the relay. */

export class Subscriber {
  #signal;
  #pc;
  #trackByMid = {};
  #turn = Promise.resolve();
  #onTrack;
  #onFailed;
  #e2ee;
  #trackOf;

  /** `trackOf(sid)` is {identity, isEncrypted, mimeType} of a track. */
  constructor({ signal, iceServers, e2ee, trackOf, onState, onTrack, onData, onFailed }) {
    this.#signal = signal;
    this.#e2ee = e2ee;
    this.#trackOf = trackOf;
    this.#onTrack = onTrack;
    this.#onFailed = onFailed;
    this.#pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle", ...e2ee.configuration });
    this.#pc.onconnectionstatechange = () => onState(this.#pc.connectionState);
    this.#pc.ontrack = (event) => this.#tell(event);
    this.#pc.ondatachannel = ({ channel }) => {
      channel.binaryType = "arraybuffer";
      channel.onmessage = ({ data }) => onData(data, channel.label);
    };
  }

  /** Answer an offer. The relay sends its candidates inside and, being ICE-lite, needs none of ours. */
  onOffer({ sdp, id = 0, midToTrackId = {} }) {
    this.#turn = this.#turn.then(async () => {
      if (this.#pc.signalingState === "closed") return;
      try {
        this.#trackByMid = { ...this.#trackByMid, ...midToTrackId };
        await this.#pc.setRemoteDescription({ type: "offer", sdp });
        await this.#pc.setLocalDescription(await this.#pc.createAnswer());
        this.#signal.send({ answer: { type: "answer", sdp: this.#pc.localDescription.sdp, id } });
      } catch (error) {
        if (this.#pc.signalingState !== "closed") this.#onFailed(error);
      }
    });
  }

  /** Go on over another socket; the relay brings new ICE credentials by its next offer. */
  resume(iceServers) {
    this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers });
  }

  /** Return how loud each audio track is right now, 0 to 1, by track sid. */
  levels() {
    const levels = new Map();
    for (const { receiver, mid, currentDirection } of this.#pc.getTransceivers()) {
      if (receiver.track.kind !== "audio" || currentDirection !== "recvonly") continue;
      levels.set(this.#trackByMid[mid], receiver.getSynchronizationSources()[0]?.audioLevel ?? 0);
    }
    return levels;
  }

  /** Return {report, trackByMid}: what the browser counts, and which track a section carries. */
  async inspect() {
    return { report: await this.#pc.getStats(), trackByMid: this.#trackByMid };
  }

  close() {
    this.#pc.onconnectionstatechange = null;
    this.#pc.close();
  }

  #tell({ transceiver, receiver, streams, track }) {
    const sid = this.#trackByMid[transceiver.mid] || streams[0]?.id.split("|")[1];
    const known = this.#trackOf(sid);
    // In an encrypted call nothing clear is shown; without its key, nothing sealed reaches a decoder.
    if (this.#e2ee.isOn || known?.isEncrypted) {
      this.#e2ee.unlock(receiver, { identity: known?.identity ?? "", trackSid: sid, codec: known?.mimeType ?? "" });
    }
    if (sid) this.#onTrack(sid, new MediaStream([track]));
  }
}

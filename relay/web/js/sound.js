/** Plays what others say: one audio element per track, the chosen speaker, and what to do when a browser will not. */

import { el } from "./dom.js";

export class Sound {
  #root;
  #store;
  #players = new Map(); // track sid → audio element
  #output = "";

  constructor(root, store) {
    this.#root = root;
    this.#store = store;
  }

  /** True where this browser lets pages choose a speaker. */
  static get canChoose() {
    return "setSinkId" in HTMLMediaElement.prototype;
  }

  /** Play the audio tracks of a state, and no others. */
  render({ participants, streams, chosen }) {
    const wanted = new Map();
    for (const { isLocal, tracks } of participants.values()) {
      if (isLocal) continue;
      for (const { sid, kind } of tracks) if (kind === "audio" && streams.has(sid)) wanted.set(sid, streams.get(sid));
    }
    for (const [sid, player] of this.#players) {
      if (wanted.has(sid)) continue;
      player.srcObject = null;
      player.remove();
      this.#players.delete(sid);
    }
    for (const [sid, stream] of wanted) {
      const player = this.#players.get(sid);
      if (player?.srcObject === stream) continue;
      if (player) player.srcObject = stream;
      else this.#add(sid, stream);
      this.#play(this.#players.get(sid));
    }
    if (this.#output !== chosen.audiooutput) {
      this.#output = chosen.audiooutput;
      for (const player of this.#players.values()) this.#route(player);
    }
  }

  /** Start what the browser held back; must be called from a click. */
  unblock() {
    this.#store.update({ isAudioBlocked: false });
    for (const player of this.#players.values()) this.#play(player);
  }

  #add(sid, stream) {
    const player = el("audio", { autoplay: true });
    player.srcObject = stream;
    this.#players.set(sid, player);
    this.#root.append(player);
    this.#route(player);
  }

  #play(player) {
    player.play().catch((error) => {
      if (error.name === "NotAllowedError") this.#store.update({ isAudioBlocked: true });
    });
  }

  #route(player) {
    // A speaker that was unplugged: the system's own choice is right.
    if (Sound.canChoose && this.#output) player.setSinkId(this.#output).catch(() => {});
  }
}

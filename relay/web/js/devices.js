/**
 * This person's camera, microphone and screen: opened, switched, muted, given back.
 *
 * A microphone that is off keeps its track, disabled, so that speaking again takes no time; a camera that is off is
 * really off, and so is its light. Changes are told through the store, and to `onChange` for whoever sends them.
 */

import { deviceProblem } from "./errors.js";

// 720p: what simulcast divides by 4, 2 and 1.
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } };
const MICROPHONE = { channelCount: { ideal: 1 }, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const KIND_OF = { microphone: "audioinput", camera: "videoinput" };
const REMEMBERED = "veil.devices";

export class LocalMedia {
  #store;
  #turn = Promise.resolve();

  constructor(store) {
    this.tracks = { microphone: null, camera: null, screenShare: null };
    this.onChange = () => {};
    this.#store = store;
    store.update({ chosen: { ...store.state.chosen, ...remembered() } });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.refreshDevices());
  }

  get canCapture() {
    return Boolean(navigator.mediaDevices?.getUserMedia);
  }

  get canShareScreen() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /** Open both at once, so that people are asked once; what cannot be had is told by its `problem`. */
  open(wanted = { microphone: true, camera: true }) {
    return this.#inTurn(async () => {
      const sources = Object.keys(wanted).filter((source) => wanted[source]);
      for (const source of sources) this.#note(source, { busy: true });
      try {
        if (sources.length === 2) {
          const stream = await this.#ask({ audio: this.#constraints("microphone"), video: this.#constraints("camera") });
          this.#adopt("microphone", stream.getAudioTracks()[0]);
          this.#adopt("camera", stream.getVideoTracks()[0]);
        } else {
          for (const source of sources) await this.#openOne(source);
        }
      } catch (error) {
        for (const source of sources) {
          if (await wouldAskAgain(source, error)) this.#note(source, { on: false, problem: deviceProblem(source, error) });
          else await this.#openOne(source);
        }
      }
      for (const source of sources) this.#note(source, { busy: false });
      // Whoever joined faster than the camera opened is in the call already.
      this.onChange();
      await this.refreshDevices();
    });
  }

  /** Switch a source on or off. */
  set(source, on) {
    return this.#inTurn(async () => {
      if (source === "screenShare") return on ? this.#openScreen() : this.#drop("screenShare");
      const track = this.tracks[source];
      if (!on && source === "camera") return this.#drop("camera");
      if (track?.readyState === "live") {
        track.enabled = on;
        this.#note(source, { on, problem: null });
      } else if (on) {
        this.#note(source, { busy: true });
        await this.#openOne(source);
        this.#note(source, { busy: false });
        await this.refreshDevices();
      }
      this.onChange();
    });
  }

  /** Use another device from now on. */
  choose(kind, deviceId) {
    const chosen = { ...this.#store.state.chosen, [kind]: deviceId };
    this.#store.update({ chosen });
    remember(chosen);
    const source = Object.keys(KIND_OF).find((name) => KIND_OF[name] === kind);
    if (!source || !(this.tracks[source] || this.#store.state[source].problem)) return Promise.resolve();
    return this.#inTurn(async () => {
      const wasOn = this.#store.state[source].on || Boolean(this.#store.state[source].problem);
      // Some cameras cannot be open twice, and the old device may be the very same one.
      this.#stop(source);
      await this.#openOne(source);
      if (!wasOn && this.tracks[source]) this.tracks[source].enabled = false;
      if (!wasOn) this.#note(source, { on: false });
      this.onChange();
    });
  }

  async refreshDevices() {
    if (!this.canCapture) return;
    const found = await navigator.mediaDevices.enumerateDevices().catch(() => []);
    const devices = { audioinput: [], videoinput: [], audiooutput: [] };
    // Without permission browsers list devices without id and name; such entries help nobody.
    for (const device of found) if (device.deviceId && devices[device.kind]) devices[device.kind].push(device);
    this.#store.update({ devices });
  }

  /** Give everything back. */
  close() {
    for (const source of Object.keys(this.tracks)) this.#drop(source);
  }

  #inTurn(work) {
    this.#turn = this.#turn.then(work, work);
    return this.#turn;
  }

  async #ask(constraints) {
    if (!this.canCapture) {
      throw Object.assign(new Error("no secure context"), { name: window.isSecureContext ? "NotFoundError" : "InsecureContext" });
    }
    return navigator.mediaDevices.getUserMedia(constraints);
  }

  #constraints(source, { anyDevice = false } = {}) {
    const device = anyDevice ? "" : this.#store.state.chosen[KIND_OF[source]];
    const wanted = source === "camera" ? CAMERA : MICROPHONE;
    return device ? { ...wanted, deviceId: { exact: device } } : wanted;
  }

  async #openOne(source) {
    const name = source === "camera" ? "video" : "audio";
    try {
      let stream;
      try {
        stream = await this.#ask({ [name]: this.#constraints(source) });
      } catch (error) {
        // The remembered device is gone: any other is better than none.
        if (!["OverconstrainedError", "NotFoundError"].includes(error.name)) throw error;
        stream = await this.#ask({ [name]: this.#constraints(source, { anyDevice: true }) });
      }
      this.#adopt(source, stream.getTracks()[0]);
    } catch (error) {
      this.#note(source, { on: false, problem: deviceProblem(source, error) });
    }
  }

  async #openScreen() {
    try {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 15 } } });
      const [track] = stream.getVideoTracks();
      track.contentHint = "detail";
      this.#adopt("screenShare", track);
      this.onChange();
    } catch (error) {
      // Closing the browser's own picker is a decision, not a fault.
      if (error.name !== "NotAllowedError") this.#note("screenShare", { problem: deviceProblem("screenShare", error) });
    }
  }

  #adopt(source, track) {
    if (this.tracks[source]) this.#stop(source);
    this.tracks[source] = track;
    // Unplugged, taken by the system, or the browser's own "stop sharing".
    track.addEventListener("ended", () => {
      if (this.tracks[source] !== track) return;
      this.#drop(source);
      if (source !== "screenShare") this.#note(source, { problem: deviceProblem(source, { name: "NotFoundError" }) });
    });
    this.#note(source, { on: true, problem: null });
  }

  #drop(source) {
    this.#stop(source);
    this.#note(source, { on: false });
    this.onChange();
  }

  #stop(source) {
    this.tracks[source]?.stop();
    this.tracks[source] = null;
  }

  #note(source, patch) {
    this.#store.update((state) => ({ [source]: { ...state[source], ...patch }, ...this.#pictures(source, state) }));
  }

  #pictures(source, state) {
    const track = this.tracks[source];
    const name = { camera: "localCamera", screenShare: "localScreen" }[source];
    if (!name || state[name]?.getTracks()[0] === (track ?? undefined)) return {};
    return { [name]: track ? new MediaStream([track]) : null };
  }
}

/** True when asking for this source alone would only repeat the same refusal, or the same question. */
async function wouldAskAgain(source, error) {
  if (error.name === "InsecureContext") return true;
  if (error.name !== "NotAllowedError") return false;
  try {
    return (await navigator.permissions.query({ name: source })).state !== "granted";
  } catch {
    return false;
  }
}

function remembered() {
  try {
    const kept = JSON.parse(localStorage.getItem(REMEMBERED) ?? "{}");
    return Object.fromEntries(Object.entries(kept).filter(([, value]) => typeof value === "string"));
  } catch {
    return {};
  }
}

function remember(chosen) {
  try {
    localStorage.setItem(REMEMBERED, JSON.stringify(chosen));
  } catch {
    // Private windows may forbid storage; the choice then lasts as long as the page.
  }
}

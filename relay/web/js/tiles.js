/** The stage: one tile per person and per shared screen, placed by the grid, and what they are shown at. */

import { el, setAttribute, setText } from "./dom.js";
import { gridLayout, spotlightLayout } from "./grid.js";
import { icon } from "./icons.js";

const GAP = 10;
const NARROW_GAP = 6;
const SETTLE_MS = 150;
const HIDE_MS = 2_000;
// Sharper than twice the CSS size nobody sees; phones with three would pull the largest encoding into small tiles.
const MAX_PIXEL_RATIO = 2;

export class Stage {
  #root;
  #tiles = new Map(); // key → {root, video, …, place}
  #shown = new Map(); // track sid → what the relay was told
  #onShow;
  #settleTimer;
  #hideTimer;
  #isHidden = false;
  #state;

  /** `onShow` takes [{sids, width, height}, {sids, disabled}] whenever sizes changed. */
  constructor(root, onShow) {
    this.#root = root;
    this.#onShow = onShow;
    new ResizeObserver(() => this.#place()).observe(root);
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#hideTimer);
      this.#hideTimer = setTimeout(() => this.#setHidden(document.hidden), document.hidden ? HIDE_MS : 0);
    });
  }

  /** Show the participants of a state. */
  render(state) {
    this.#state = state;
    const wanted = tilesOf(state);
    const keys = new Set(wanted.map(({ key }) => key));
    for (const [key, tile] of this.#tiles) {
      if (keys.has(key)) continue;
      tile.root.remove();
      this.#tiles.delete(key);
    }
    for (const description of wanted) {
      const tile = this.#tiles.get(description.key) ?? this.#add(description.key);
      fill(tile, description);
    }
    // Order in the document is order for screen readers; moving a playing video would restart it.
    this.#order = wanted.map(({ key }) => key);
    this.#hasScreen = wanted.some(({ isScreen }) => isScreen);
    this.#root.classList.toggle("is-alone", wanted.length === 1);
    this.#place();
  }

  #order = [];
  #hasScreen = false;

  /** Forget what the relay was told; a new connection knows nothing of it. */
  reset() {
    this.#shown.clear();
  }

  #add(key) {
    const video = el("video", { playsinline: true, autoplay: true });
    video.muted = true;
    const avatar = el("span", { class: "avatar", "aria-hidden": "true" });
    const name = el("span", { class: "tile-name" });
    const muted = el("span", { class: "tile-muted", title: "Microphone is off" }, icon("micOff"));
    muted.append(el("span", { class: "for-readers", text: "Microphone is off" }));
    const lock = el("span", { class: "tile-lock", hidden: true }, icon("lock"), el("span", { class: "for-readers" }));
    const seal = el("span", { class: "tile-seal", role: "status", hidden: true });
    const paused = el("div", { class: "tile-paused", role: "status", hidden: true }, icon("pause"), el("span"));
    const root = el("li", { class: "tile is-new" }, video, avatar, paused, seal, el("span", { class: "tile-label" }, lock, muted, name));
    // A video knows its shape late, and phones turn.
    video.addEventListener("resize", () => fit(tile));
    const tile = { key, root, video, avatar, name, muted, lock, seal, paused, place: null };
    this.#tiles.set(key, tile);
    this.#root.append(root);
    requestAnimationFrame(() => root.classList.remove("is-new"));
    return tile;
  }

  #place() {
    const { clientWidth: width, clientHeight: height } = this.#root;
    if (!width || !height) return;
    const layout = this.#hasScreen ? spotlightLayout : gridLayout;
    const places = layout(this.#order.length, width, height, width < 600 ? NARROW_GAP : GAP);
    for (const [index, key] of this.#order.entries()) {
      const tile = this.#tiles.get(key);
      const { x, y, width: tileWidth, height: tileHeight } = (tile.place = places[index]);
      const { style } = tile.root;
      style.transform = `translate(${x}px, ${y}px)`;
      style.width = `${tileWidth}px`;
      style.height = `${tileHeight}px`;
      tile.root.classList.toggle("is-small", tileWidth < 200);
      fit(tile);
    }
    clearTimeout(this.#settleTimer);
    this.#settleTimer = setTimeout(() => this.#tell(), SETTLE_MS);
  }

  #setHidden(isHidden) {
    this.#isHidden = isHidden;
    this.#tell();
  }

  /** Tell the relay how large every video is shown, where that changed; tiles of one size share a message. */
  #tell() {
    const bySize = new Map();
    const scale = Math.min(window.devicePixelRatio || 1, MAX_PIXEL_RATIO);
    const present = new Set();
    for (const { trackSid, place } of this.#tiles.values()) {
      if (!trackSid || !place) continue;
      present.add(trackSid);
      const size = this.#isHidden ? "" : `${Math.ceil(place.width * scale)}x${Math.ceil(place.height * scale)}`;
      if (this.#shown.get(trackSid) === size) continue;
      this.#shown.set(trackSid, size);
      bySize.set(size, [...(bySize.get(size) ?? []), trackSid]);
    }
    for (const sid of this.#shown.keys()) if (!present.has(sid)) this.#shown.delete(sid);
    const settings = [...bySize].map(([size, sids]) => {
      const [width, height] = size.split("x").map(Number);
      return size ? { sids, width, height } : { sids, disabled: true };
    });
    if (settings.length) this.#onShow(settings);
  }
}

/** Return what is on the stage, in order: shared screens, others by when they came, this person last. */
export function tilesOf(state) {
  const { participants, streams, paused, speaking, localCamera, localScreen, microphone, secret, locks, isSealed, hasLeaked } = state;
  const people = [...participants.values()].sort((a, b) => a.isLocal - b.isLocal || a.joinedAtMs - b.joinedAtMs);
  const ownLock = secret && isSealed && !hasLeaked ? "locked" : "";
  const screens = [];
  const faces = [];
  for (const { sid, identity, name, isLocal, tracks } of people) {
    const track = (source) => tracks.find((candidate) => candidate.source === source);
    const camera = track("camera");
    const voice = track("microphone");
    const screen = track("screenShare");
    faces.push({
      key: `${sid}/camera`,
      identity,
      name,
      isLocal,
      isScreen: false,
      lock: isLocal ? ownLock : lockOf([camera, voice], secret, locks),
      isMuted: isLocal ? !microphone.on : !voice || voice.muted,
      isSpeaking: speaking.has(sid),
      isPaused: !isLocal && Boolean(camera) && !camera.muted && paused.has(camera.sid),
      trackSid: isLocal || !camera || camera.muted ? "" : camera.sid,
      stream: isLocal ? localCamera : camera && !camera.muted ? (streams.get(camera.sid) ?? null) : null,
    });
    if (!(isLocal ? localScreen : screen)) continue;
    screens.push({
      key: `${sid}/screen`,
      identity,
      name,
      isLocal,
      isScreen: true,
      lock: isLocal ? ownLock : lockOf([screen], secret, locks),
      isMuted: false,
      isSpeaking: false,
      isPaused: !isLocal && paused.has(screen.sid),
      trackSid: isLocal ? "" : screen.sid,
      stream: isLocal ? localScreen : (streams.get(screen.sid) ?? null),
    });
  }
  return [...screens, ...faces];
}

/** Return what is known of somebody's tracks: the worst of them counts. Empty: nothing to say, or nothing known yet. */
export function lockOf(tracks, secret, locks) {
  const found = tracks
    .filter((track) => track && !track.muted)
    .map(({ sid, isEncrypted }) => (isEncrypted ? (locks.get(sid) ?? "") : secret ? "clear" : ""));
  const worst = ["clear", "mismatch", "missing", ""].find((lock) => found.includes(lock));
  return worst ?? (found.length ? "locked" : "");
}

const LOCK_WORDS = {
  locked: "End-to-end encrypted",
  missing: "Encrypted with a key you do not have",
  mismatch: "Encrypted with another key than yours",
  clear: "Not encrypted, so not shown in this call",
};

const PAUSED_WORDS = "Paused: your connection is too slow for this video";

function fill(tile, { identity, name, isLocal, isScreen, isMuted, isSpeaking, isPaused, stream, trackSid, lock }) {
  const { root, video } = tile;
  const shown = isScreen ? `${name}${isLocal ? " (you)" : ""}, screen` : isLocal ? `${name} (you)` : name;
  tile.trackSid = trackSid;
  setText(tile.name, shown);
  setText(tile.avatar, initials(name));
  setAttribute(root, "data-identity", identity);
  setAttribute(root, "data-hue", hueOf(name));
  for (const [fact, holds] of Object.entries({
    "is-local": isLocal,
    "is-screen": isScreen,
    "is-muted": isMuted,
    "is-speaking": isSpeaking && !isMuted,
    "has-video": Boolean(stream),
  })) {
    root.classList.toggle(fact, holds);
  }
  tile.muted.hidden = !isMuted;
  tile.paused.hidden = !isPaused;
  setText(tile.paused.lastElementChild, isPaused ? PAUSED_WORDS : "");
  tile.lock.hidden = lock !== "locked";
  tile.lock.title = LOCK_WORDS.locked;
  setText(tile.lock.lastElementChild, LOCK_WORDS.locked);
  tile.seal.hidden = lock === "locked" || !lock;
  setText(tile.seal, LOCK_WORDS[lock] ?? "");
  setAttribute(root, "data-lock", lock);
  if (video.srcObject !== stream) {
    video.srcObject = stream;
    if (stream) video.play().catch(() => {});
  }
}

/** Crop a little, never much: a picture held upright keeps its edges. */
function fit({ root, video, place }) {
  if (!place || !video.videoWidth) return;
  const picture = video.videoWidth / video.videoHeight;
  const tile = place.width / place.height;
  root.classList.toggle("is-whole", Math.max(picture / tile, tile / picture) > 1.9);
}

/** Return one or two letters for a name. */
export function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const first = (word) => [...(word ?? "")][0]?.toUpperCase() ?? "";
  return words.length > 1 ? first(words[0]) + first(words.at(-1)) : first(words[0]) || "?";
}

/** Return one of eight colours, the same for a name in every call. */
export function hueOf(text) {
  let sum = 7;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) >>> 0;
  return sum % 8;
}

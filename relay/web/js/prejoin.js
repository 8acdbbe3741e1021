/** The lobby: see and hear yourself, choose devices, say who you are. */

import { joinProblem } from "./errors.js";
import { deviceSelect, problemNotes, sourceButton } from "./controls.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { watchLevel } from "./meter.js";
import { readInvite } from "./api.js";
import { Sound } from "./sound.js";

const BARS = 9;
const NAME = "veil.name";

/** Wire the lobby. `join({name, room})` is called when a person wants in. Returns what renders it. */
export function lobby(store, media, join) {
  const name = byId("join-name");
  const room = byId("join-room");
  const passphrase = byId("join-passphrase");
  const sealed = byId("join-sealed");
  const parts = [
    sourceButton(byId("lobby-microphone"), "microphone", media, store),
    sourceButton(byId("lobby-camera"), "camera", media, store),
    deviceSelect(byId("lobby-audioinput"), "audioinput", media, "Microphone"),
    deviceSelect(byId("lobby-videoinput"), "videoinput", media, "Camera"),
    deviceSelect(byId("lobby-audiooutput"), "audiooutput", media, "Speaker"),
    problemNotes(byId("lobby-problems"), media),
    preview(),
    meter(media),
  ];
  for (const input of [passphrase, sealed]) input.addEventListener("input", () => describeEncryption(store.state, passphrase, sealed));
  name.value = rememberedName();
  if (!Sound.canChoose) for (const field of document.querySelectorAll('[data-needs="audiooutput"]')) field.hidden = true;

  byId("join-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const { isJoining, dev, invite, needsPassphrase } = store.state;
    const wanted = [name, ...(dev && !invite ? [room] : []), ...(needsPassphrase ? [passphrase] : [])];
    const missing = wanted.find((input) => !input.value.trim());
    for (const input of [name, room, passphrase]) setAttribute(input, "aria-invalid", input === missing ? "true" : null);
    if (missing) missing.focus();
    if (missing || isJoining) return;
    rememberName(name.value.trim());
    join({ name: name.value.trim(), room: room.value.trim(), passphrase: passphrase.value, isSealed: sealed.checked });
  });
  byId("invite-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const fragment = byId("invite-link").value.trim().split("#")[1] ?? "";
    const invite = new URLSearchParams(fragment).get("invite"); // The rest of it may be a key.
    byId("invite-problem").hidden = Boolean(invite);
    setText(byId("invite-problem"), "That is no invite link: it has #invite= in it.");
    if (invite) location.hash = fragment;
  });

  return (state) => {
    const isInvite = state.screen === "invite";
    byId("lobby").classList.toggle("is-invite", isInvite);
    byId("join-form").hidden = isInvite;
    byId("invite-form").hidden = !isInvite;
    if (isInvite) return;
    for (const part of parts) part(state);
    describe(state, room);
    describeEncryption(state, passphrase, sealed);
  };
}

let secretShown;

/** A link with a key, or a passphrase that came in it, is taken over once; from then on the fields say what is meant. */
function describeEncryption({ secret, needsPassphrase }, passphrase, sealed) {
  if (secret !== secretShown) {
    secretShown = secret;
    sealed.checked = secret?.format === "sframe";
    passphrase.value = secret?.passphrase ?? "";
    byId("lobby-e2ee").open = Boolean(secret);
  }
  if (needsPassphrase && !passphrase.value) byId("lobby-e2ee").open = true;
  sealed.disabled = Boolean(passphrase.value);
  const isLink = sealed.checked && !passphrase.value;
  const words = passphrase.value
    ? "Only people with this passphrase see and hear you."
    : isLink && secret
      ? "The link you opened has the key: only people with it see and hear you."
      : needsPassphrase
        ? "This call has a passphrase. Ask the person who invited you."
        : isLink
          ? "A new key goes into the link that you copy in the call. Only people with that link see and hear you."
          : "Off: the server could see and hear this call.";
  setText(byId("e2ee-hint"), words);
}

function describe({ dev, invite, room: known, isJoining, joinProblem: problem, microphone, camera }, room) {
  const { room: invited, isExpired } = invite ? readInvite(invite) : { room: "", isExpired: false };
  byId("room-field").hidden = Boolean(invite) || !dev;
  if (known && !room.value) room.value = known;
  setText(byId("join-title"), invited ? "You are invited" : "Ready when you are");
  setText(byId("join-text"), invited ? `to “${invited}”` : "Check your picture and sound, then join.");
  const told = problem ?? (isExpired ? { title: "This link has expired", text: "Ask for a new one." } : null);
  showProblem(byId("join-problem"), told);
  const button = byId("join-button");
  setText(button, isJoining ? "Joining…" : "Join now");
  setAttribute(button, "aria-disabled", isJoining ? "true" : null);
  const isSilent = !microphone.on && !camera.on && !microphone.busy && !camera.busy;
  setText(byId("join-hint"), isSilent ? "You will join with camera and microphone off." : "");
}

/** Show {title, text} in a box, nothing for null. */
export function showProblem(box, problem) {
  box.hidden = !problem;
  const wanted = problem ? `${problem.title}\n${problem.text}` : "";
  if (box.dataset.shown === wanted) return;
  box.dataset.shown = wanted;
  box.replaceChildren(...(problem ? [el("strong", { text: problem.title }), el("span", { text: problem.text })] : []));
}

/** Show that the server could not even be asked. */
export function unreachable(store, error) {
  store.update({ screen: "prejoin", joinProblem: joinProblem(error) });
}

function preview() {
  const video = byId("preview-video");
  const root = byId("preview");
  return ({ localCamera, camera }) => {
    if (video.srcObject !== localCamera) video.srcObject = localCamera;
    root.classList.toggle("has-video", Boolean(localCamera));
    setText(
      byId("preview-state"),
      camera.busy ? "Starting camera…" : camera.problem ? camera.problem.title : camera.on ? "" : "Camera is off",
    );
  };
}

function meter(media) {
  const root = byId("meter");
  const bars = Array.from({ length: BARS }, () => el("i"));
  root.replaceChildren(...bars);
  let watched = null;
  let stop = () => {};
  return ({ screen, microphone }) => {
    const track = screen === "prejoin" && microphone.on ? media.tracks.microphone : null;
    root.hidden = !track;
    if (track === watched) return;
    stop();
    watched = track;
    stop = track ? watchLevel(track, (level) => draw(root, bars, level)) : () => {};
  };
}

function draw(root, bars, level) {
  const lit = Math.round(level * bars.length);
  for (const [index, bar] of bars.entries()) bar.classList.toggle("is-lit", index < lit);
  setAttribute(root, "aria-valuenow", Math.round(level * 20) * 5);
}

function rememberedName() {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

function rememberName(name) {
  try {
    localStorage.setItem(NAME, name);
  } catch {
    // Private windows may forbid storage; the name is asked for again.
  }
}

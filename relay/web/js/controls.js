/** Buttons and menus that both the lobby and the call have: microphone, camera, devices. */

import { el, setAttribute, setText } from "./dom.js";
import { deviceProblem } from "./errors.js";
import { setIcon } from "./icons.js";

const LOOKS = {
  microphone: { on: ["mic", "Turn off microphone"], off: ["micOff", "Turn on microphone"], key: "M" },
  camera: { on: ["camera", "Turn off camera"], off: ["cameraOff", "Turn on camera"], key: "V" },
  screenShare: { on: ["screen", "Stop sharing"], off: ["screen", "Share your screen"], key: "" },
};

/** Make a button switch a source. Returns what renders it. */
export function sourceButton(button, source, media, store) {
  button.addEventListener("click", () => {
    const { on, busy } = store.state[source];
    if (!busy) media.set(source, !on);
  });
  return (state) => {
    const { on, busy, problem } = state[source];
    const [name, label] = on ? LOOKS[source].on : LOOKS[source].off;
    const key = LOOKS[source].key;
    setIcon(button, name);
    setAttribute(button, "aria-label", label);
    setAttribute(button, "aria-pressed", String(on));
    setAttribute(button, "aria-busy", busy ? "true" : null);
    setAttribute(button, "title", problem ? problem.title : key ? `${label} (${key})` : label);
    button.classList.toggle("is-off", !on);
    button.classList.toggle("has-problem", Boolean(problem));
  };
}

/** Make a select choose a device. Returns what renders it. */
export function deviceSelect(select, kind, media, fallback) {
  select.addEventListener("change", () => media.choose(kind, select.value));
  let drawn = "";
  return ({ devices, chosen, microphone, camera }) => {
    const list = devices[kind];
    const active = { audioinput: media.tracks.microphone, videoinput: media.tracks.camera }[kind];
    const current = active?.getSettings().deviceId || chosen[kind] || list[0]?.deviceId || "";
    const names = list.map(({ label }, index) => label || `${fallback} ${index + 1}`);
    const now = JSON.stringify([list.map(({ deviceId }) => deviceId), names, current]);
    select.disabled = list.length === 0 || (microphone.busy && camera.busy);
    if (now === drawn) return;
    drawn = now;
    const options = list.map(({ deviceId }, index) => el("option", { value: deviceId, text: names[index] }));
    select.replaceChildren(...(options.length ? options : [el("option", { value: "", text: `No ${fallback.toLowerCase()} found` })]));
    select.value = list.some(({ deviceId }) => deviceId === current) ? current : (list[0]?.deviceId ?? "");
  };
}

/** Show what is wrong with camera and microphone, once where it is the same, with a button that tries again. */
export function problemNotes(root, media) {
  const note = (sources) => {
    const title = el("strong");
    const text = el("span");
    const again = async () => {
      if (sources.length > 1) await media.open();
      else await media.set(sources[0], true);
    };
    const retry = el("button", { type: "button", class: "link", text: "Try again", click: again });
    const box = el("div", { class: "problem", role: "alert", "data-source": sources.join("-"), hidden: true }, title, text, retry);
    root.append(box);
    return (problem) => {
      setText(title, problem?.title ?? "");
      setText(text, problem?.text ?? "");
      retry.hidden = !problem?.canRetry;
      box.hidden = !problem;
    };
  };
  const both = note(["microphone", "camera"]);
  const microphone = note(["microphone"]);
  const camera = note(["camera"]);
  return (state) => {
    const [first, second] = [state.microphone.problem, state.camera.problem];
    const isSame = first && second && first.name === second.name;
    both(isSame ? deviceProblem("both", first) : null);
    microphone(isSame ? null : first);
    camera(isSame ? null : second);
  };
}

/** Call `act` for a key pressed alone, and not while somebody writes or chooses. */
export function onKey(keys) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (act && (!isTyping || event.key === "Escape")) act(event);
  });
}

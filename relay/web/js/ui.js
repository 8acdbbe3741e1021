/** The call and its end: what is on the screen besides the tiles. */

import { chatPanel } from "./chatpanel.js";
import { deviceSelect, onKey, problemNotes, sourceButton } from "./controls.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { icon } from "./icons.js";
import { qualityPanel } from "./quality.js";
import { securityPanel } from "./security.js";
import { Sound } from "./sound.js";
import { Stage } from "./tiles.js";

const NOTICE_MS = 6_000;
const COPIED_MS = 2_000;
const PANELS = ["chat", "security", "quality", "settings"];

/** Wire the call screen. `linkOf(state)` is the address that brings others here. Returns what renders it. */
export function callScreen(store, media, room, linkOf) {
  const stage = new Stage(byId("stage"), (settings) => room.show(settings));
  const sound = new Sound(byId("sounds"), store);
  const toggle = (panel) => store.update(({ panel: open }) => ({ panel: open === panel ? "" : panel }));
  const parts = [
    sourceButton(byId("call-microphone"), "microphone", media, store),
    sourceButton(byId("call-camera"), "camera", media, store),
    sourceButton(byId("call-screen"), "screenShare", media, store),
    deviceSelect(byId("call-audioinput"), "audioinput", media, "Microphone"),
    deviceSelect(byId("call-videoinput"), "videoinput", media, "Camera"),
    deviceSelect(byId("call-audiooutput"), "audiooutput", media, "Speaker"),
    problemNotes(byId("call-problems"), media),
    chatPanel(store, room.chat),
    securityPanel(),
    qualityPanel(store, room),
    deviceProblems(store),
    notices(),
    banner,
    panels(),
    info,
  ];

  byId("call-leave").addEventListener("click", () => room.leave());
  byId("call-chat").addEventListener("click", () => toggle("chat"));
  byId("call-settings").addEventListener("click", () => toggle("settings"));
  byId("call-security").addEventListener("click", () => toggle("security"));
  byId("call-quality").addEventListener("click", () => toggle("quality"));
  for (const panel of PANELS) byId(`${panel}-close`).addEventListener("click", () => store.update({ panel: "" }));
  byId("listen").addEventListener("click", () => sound.unblock());
  copyButton(byId("call-link"), byId("call-link-text"), () => linkOf(store.state));
  copyButton(byId("alone-link"), byId("alone-link-text"), () => linkOf(store.state));
  onKey({
    m: () => inCall(store, () => byId("call-microphone").click()),
    v: () => inCall(store, () => byId("call-camera").click()),
    c: (event) => inCall(store, () => (event.preventDefault(), toggle("chat"))),
    q: () => inCall(store, () => toggle("quality")),
    Escape: () => inCall(store, () => store.update({ panel: "" })),
  });

  let connection = "";
  return (state) => {
    if (state.connection !== connection) {
      // A new connection is told all sizes again; what an old one was told last it may not have heard.
      if (state.connection !== "connected" || connection === "resuming") stage.reset();
      connection = state.connection;
    }
    for (const source of ["microphone", "camera", "screen"]) {
      const isImpossible = source === "screen" && !media.canShareScreen;
      byId(`call-${source}`).hidden = !state.canPublish || isImpossible;
    }
    byId("call-chat").hidden = !state.canChat && state.messages.length === 0;
    for (const part of parts) part(state);
    sound.render(state);
    stage.render(state);
  };
}

function inCall(store, act) {
  if (store.state.screen === "call") act();
}

function info({ room, participants, isAudioBlocked, connection }) {
  setText(byId("call-room"), room);
  setText(byId("call-count"), String(participants.size));
  byId("call-alone").hidden = participants.size !== 1 || connection !== "connected";
  byId("listen").hidden = !isAudioBlocked;
}

const BANNERS = {
  connecting: "Connecting audio and video…",
  resuming: "Connection lost. Reconnecting…",
  reconnecting: "Connection lost. Reconnecting…",
};

function banner({ connection }) {
  const text = BANNERS[connection] ?? "";
  byId("banner").hidden = !text;
  byId("call").classList.toggle("is-reconnecting", connection === "resuming" || connection === "reconnecting");
  // While the session may be resumed its pictures go on.
  byId("call").classList.toggle("is-still", connection === "reconnecting");
  setText(byId("banner-text"), text);
}

function panels() {
  let open = "";
  return ({ panel }) => {
    for (const name of PANELS) {
      byId(name).hidden = panel !== name;
      setAttribute(byId(`call-${name}`), "aria-expanded", String(panel === name));
    }
    byId("call").classList.toggle("has-panel", Boolean(panel));
    if (panel === open) return;
    // Keyboard users land in what they opened, and come back to the button that opened it.
    if (panel === "chat") byId("chat-text").focus();
    else if (panel === "settings") byId("call-audioinput").focus();
    else byId(panel ? `${panel}-close` : `call-${open}`).focus();
    open = panel;
  };
}

/** Turn device problems that appear during a call into notices. */
function deviceProblems(store) {
  const seen = new Map();
  return (state) => {
    for (const source of ["microphone", "camera", "screenShare"]) {
      const { problem } = state[source];
      if (seen.has(source) && problem && problem !== seen.get(source)) {
        const notice = { id: performance.now(), kind: "problem", text: `${problem.title}. ${problem.text}` };
        store.update(({ notices: shown }) => ({ notices: [...shown, notice] }));
      }
      seen.set(source, problem);
    }
  };
}

function notices() {
  const root = byId("notices");
  const drawn = new Set();
  return ({ notices: wanted }) => {
    for (const { id, kind, text } of wanted) {
      if (drawn.has(id)) continue;
      drawn.add(id);
      const box = el("div", { class: `notice is-${kind}` }, icon(kind === "problem" ? "alert" : "check"), el("span", { text }));
      const close = el("button", { class: "plain", type: "button", "aria-label": "Dismiss", click: () => box.remove() });
      close.append(icon("close"));
      box.append(close);
      root.append(box);
      // Problems stay until they are read; there is something to do about them.
      if (kind !== "problem") setTimeout(() => box.remove(), NOTICE_MS);
      else if (root.children.length > 3) root.firstElementChild.remove();
    }
  };
}

function copyButton(button, label, address) {
  const text = label.textContent;
  let timer;
  button.addEventListener("click", async () => {
    const isCopied = await copy(address());
    setText(label, isCopied ? "Copied" : "Copy failed");
    clearTimeout(timer);
    timer = setTimeout(() => setText(label, text), COPIED_MS);
  });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages without HTTPS have no clipboard; a prompt lets people copy by hand.
    return window.prompt("Copy this link:", text) !== null;
  }
}

/** Wire the last screen. Returns what renders it. */
export function endedScreen(actions) {
  byId("ended-rejoin").addEventListener("click", actions.rejoin);
  byId("ended-start").addEventListener("click", actions.start);
  return ({ ended }) => {
    if (!ended) return;
    setText(byId("ended-title"), ended.title);
    setText(byId("ended-text"), ended.text);
    byId("ended-rejoin").hidden = ended.canRejoin === false;
  };
}

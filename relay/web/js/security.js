/** What is and what is not hidden in this call, on one screen. */

import { byId, el, setText } from "./dom.js";

const HIDDEN = ["Pictures, screens and voices: they are encrypted before they leave this browser.", "Chat messages."];
const SEEN = [
  "Who is in the call, when, and from which address.",
  "How much everybody sends and when, which frames are keyframes, and how loud people speak.",
  "Names, and which tracks there are.",
];
const LIMITS = [
  "The server can always delay or drop what it carries.",
  "Everybody with the key can record the call, or pass the key on. It does not say who of them sent a frame.",
  "This page came from a server. If it were changed, it could do anything.",
];
const STATES = {
  sframe: "This call is end-to-end encrypted with the key in its link.",
  livekit_gcm: "This call is end-to-end encrypted with a passphrase.",
  "": "This call is encrypted on its way to the server, which could see and hear it.",
};

/** Return what renders the panel and the chip that opens it. */
export function securityPanel() {
  let shown;
  return ({ secret, isSealed, microphone, camera }) => {
    const format = secret?.format ?? "";
    // Who sends nothing has nothing that could have gone out in clear.
    const isProven = Boolean(format) && (isSealed || (!microphone.on && !camera.on));
    setText(byId("call-security-text"), isProven ? "Encrypted" : format ? "Checking encryption…" : "Not end-to-end encrypted");
    byId("call-security").classList.toggle("is-sealed", isProven);
    if (shown === format) return;
    shown = format;
    setText(byId("security-state"), STATES[format]);
    fill("security-hidden", format ? HIDDEN : ["Nothing: only people on the network between cannot see or hear you."]);
    fill("security-seen", format ? SEEN : ["Everything in the call."]);
    fill("security-limits", format ? LIMITS : [LIMITS[0], LIMITS[2]]);
  };
}

function fill(id, sentences) {
  byId(id).replaceChildren(...sentences.map((text) => el("li", { text })));
}

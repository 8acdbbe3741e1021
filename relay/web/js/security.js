/** What is and what is not hidden in this call, on one screen. */

import { byId, el, setText } from "./dom.js";

const HIDDEN = ["Pictures, screens and voices: they are encrypted before they leave this browser.", "Chat messages."];
const HIDDEN_OF_OTHERS = ["What others send, where their tile has a lock.", "Chat messages."];
const HIDDEN_OF_NONE = ["Nothing: only people on the network between cannot see or hear you."];
const SEEN = [
  "Who is in the call, when, and from which address.",
  "How much everybody sends and when, which frames are keyframes, and how loud people speak.",
  "Names, and which tracks there are.",
];
const LIMITS = [
  "The server can always delay or drop what it carries, or play it back later. Whose name stands on a tile is its word.",
  "Everybody with the key can record the call, or pass the key on. It does not say who of them sent a frame.",
  "This page came from a server. If it were changed, it could do anything.",
];
const STATES = {
  sframe: "This call is end-to-end encrypted with the key in its link.",
  livekit_gcm: "This call is end-to-end encrypted with a passphrase.",
  leaked: "This browser sent media that it had not encrypted, and was stopped. The server could have seen that. Use another browser.",
  "": "This call is encrypted on its way to the server, which could see and hear it.",
};

/** Return what renders the panel and the chip that opens it. */
export function securityPanel() {
  let shown;
  return ({ secret, isSealed, hasLeaked, microphone, camera, screenShare }) => {
    const format = secret?.format ?? "";
    const what = hasLeaked ? "leaked" : format;
    // Who sends nothing has nothing that could have gone out in clear.
    const isProven = Boolean(format) && !hasLeaked && (isSealed || (!microphone.on && !camera.on && !screenShare.on));
    const word = isProven ? "Encrypted" : hasLeaked ? "Encryption failed" : format ? "Checking encryption…" : "Not end-to-end encrypted";
    setText(byId("call-security-text"), word);
    byId("call-security").classList.toggle("is-sealed", isProven);
    byId("call-security").classList.toggle("is-broken", hasLeaked);
    if (shown === what) return;
    shown = what;
    setText(byId("security-state"), STATES[what]);
    fill("security-hidden", hasLeaked ? HIDDEN_OF_OTHERS : format ? HIDDEN : HIDDEN_OF_NONE);
    fill("security-seen", hasLeaked ? [...SEEN, "What this browser sent in clear."] : format ? SEEN : ["Everything in the call."]);
    fill("security-limits", format ? LIMITS : [LIMITS[0], LIMITS[2]]);
  };
}

function fill(id, sentences) {
  byId(id).replaceChildren(...sentences.map((text) => el("li", { text })));
}

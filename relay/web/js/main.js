/** Puts the page together: one store, one person's media, one room, three screens. */

import { joinByInvite, joinByRoom, serverConfig } from "./api.js";
import { LocalMedia } from "./devices.js";
import { byId } from "./dom.js";
import { BadSecret, newSecret, readSecret, secretField } from "./e2ee/keys.js";
import { drawAll } from "./icons.js";
import { lobby, unreachable } from "./prejoin.js";
import { findRelay } from "./relay.js";
import { Room } from "./room.js";
import { createStore, initialState } from "./store.js";
import { callScreen, endedScreen } from "./ui.js";

const SCREENS = { invite: "lobby", prejoin: "lobby", call: "call", ended: "ended" };

drawAll(document);
const store = createStore(initialState());
const media = new LocalMedia(store);
const room = new Room(store, media, () => {
  const { invite, name, room: wanted, secret } = store.state;
  return invite ? joinByInvite(invite, name, secret?.format) : joinByRoom(wanted, name, secret?.format);
});

const join = async ({ name, room: wanted, passphrase, isSealed }) => {
  const secret = passphrase ? { format: "livekit_gcm", passphrase } : isSealed ? (store.state.secret ?? newSecret()) : null;
  store.update({ name, secret, ...(store.state.invite ? {} : { room: wanted }) });
  await room.join();
  // The address of the page leads back into the room when it is loaded again.
  if (store.state.screen === "call") history.replaceState(null, "", linkOf(store.state));
};
const renderers = {
  lobby: lobby(store, media, join),
  call: callScreen(store, media, room, linkOf),
  ended: endedScreen({
    rejoin: async () => {
      const { microphone, camera } = atEnd;
      store.update({ screen: "prejoin", joinProblem: null });
      await media.open({ microphone, camera });
      await room.join();
    },
    start: () => enter(),
  }),
};

// What was on when a call ended is on again in the next.
let atEnd = { microphone: true, camera: true };
let shown = "";
store.subscribe((state) => {
  const screen = SCREENS[state.screen];
  if (state.screen === "call") atEnd = { microphone: state.microphone.on, camera: state.camera.on };
  if (!screen) return;
  renderers[screen](state);
  if (screen === shown) return;
  for (const name of Object.keys(renderers)) byId(name).hidden = name !== screen;
  document.body.dataset.screen = screen;
  document.title = screen === "call" && state.room ? `${state.room} · Veil` : "Veil";
  if (screen === "ended") byId("ended-title").focus();
  // A screen that was hidden had no size to be laid out in.
  renderers[screen](state);
  shown = screen;
});

/** Read the address and show the lobby. The fragment never reaches a server's log. */
async function enter() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const invite = fragment.get("invite") ?? "";
  store.update({ invite, room: invite ? "" : (fragment.get("room") ?? ""), secret: null, joinProblem: null });
  // Such a link is to a call with a passphrase, and does not say which.
  store.update({ needsPassphrase: fragment.get("passphrase") === "" });
  try {
    store.update({ secret: readSecret(location.hash) });
    await findRelay();
    const { dev } = await serverConfig();
    store.update({ dev, screen: invite || dev ? "prejoin" : "invite" });
  } catch (error) {
    if (error instanceof BadSecret) {
      store.update({ screen: "prejoin", joinProblem: { title: error.message, text: "Without it nobody could be understood." } });
    } else {
      unreachable(store, error);
    }
  }
  if (store.state.screen === "prejoin") await media.open();
}

/** Return the address that brings others to this room. */
function linkOf({ invite, room: name, secret }) {
  const fragment = new URLSearchParams(invite ? { invite } : { room: name });
  // A passphrase is told by other ways than the link; the key is what makes a link more than an address.
  if (secret?.format === "sframe") fragment.append(...secretField(secret));
  // That there is one is said, so that nobody comes back without it and is heard by the server.
  if (secret?.format === "livekit_gcm") fragment.append("passphrase", "");
  return `${location.origin}${location.pathname}#${fragment}`;
}

window.addEventListener("hashchange", () => {
  if (store.state.screen !== "call" && !store.state.isJoining) enter();
});
await enter();

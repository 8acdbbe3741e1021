/** Why pictures look as they do: what the connection carries, what of everybody is received, and what this browser sends. */

import { byId, el, setAttribute, setText } from "./dom.js";
import { graph } from "./graph.js";
import { readReceived, readSent } from "./stats.js";

const TICK_MS = 1_000;
const SENT_LIMITS = {
  bandwidth: "Your connection carries no more upwards.",
  cpu: "This computer is too busy to send more.",
  other: "The browser sends less for a reason of its own.",
};
const SOURCES = { screen_share: "shared screen", camera: "camera" };

/** Return what renders the panel. `room.inspect()` gives [sent, received, told], told being the relay's own account. */
export function qualityPanel(store, room) {
  const draw = graph(byId("quality-graph"));
  const history = [];
  let timer = 0;
  let before = null;
  let isOpen = false;

  async function tick() {
    const [sent, received, told] = await room.inspect();
    if (!isOpen) return;
    const now = { received: readReceived(received, before?.received), sent: readSent(sent, before?.sent) };
    const isFirst = before === null;
    before = now;
    // The first reading has nothing to be compared with: no rate is known yet.
    if (!isFirst) {
      history.push({ receivedBps: now.received.bps, sentBps: now.sent.bps, estimateBps: told?.estimate_bps ?? null });
      if (history.length > 60) history.shift();
    }
    draw(history);
    show(store.state, now, told);
  }

  return ({ panel, connection }) => {
    const wanted = panel === "quality" && connection === "connected";
    if (wanted === isOpen) return;
    isOpen = wanted;
    clearInterval(timer);
    before = null;
    if (!isOpen) return;
    history.length = 0;
    tick();
    timer = setInterval(tick, TICK_MS);
  };
}

function show(state, { received, sent }, told) {
  setText(byId("quality-down"), rate(received.bps));
  setText(byId("quality-up"), rate(sent.bps));
  setText(byId("quality-estimate"), told?.estimate_bps ? `≥ ${rate(told.estimate_bps)}` : "not known yet");
  setText(byId("quality-path"), path(received));
  const summary = `Receiving ${rate(received.bps)}, sending ${rate(sent.bps)}.`;
  setAttribute(byId("quality-graph"), "aria-label", summary);
  list("quality-seen", seen(state, told, received));
  list("quality-sent", sent.videos.map(sentRow));
  byId("quality-sent-part").hidden = sent.videos.length === 0;
  byId("quality-seen-part").hidden = byId("quality-seen").children.length === 0;
}

/** One row per video of somebody else: what comes, the best there is, and why not that. */
function seen(state, told, received) {
  return (told?.subscriptions ?? [])
    .filter(({ kind }) => kind === "video")
    .map(({ track, participant, source, current, best, paused, reason, sentence }) => {
      const name = state.participants.get(participant)?.name || "Somebody";
      const frames = received.videos.get(track);
      const now = paused || !current ? "Paused" : `${size(current)}, ${Math.round(frames?.fps ?? current.fps ?? 0)} a second, ${rate(current.bps)}`;
      // Who shows a picture small asks for no more of it: that is no limit to anybody.
      const isLimited = reason !== "none" && reason !== "requested";
      const better = best && current && best.height > current.height ? ` There is ${size(best)}.` : "";
      return { name: `${name}, ${SOURCES[source] ?? source}`, now, why: reason === "none" ? "The best there is." : sentence + better, isLimited };
    });
}

function sentRow({ source, layers, limit }) {
  const sending = layers.filter(({ bps }) => bps > 0);
  const now = sending.length ? sending.map(({ height, bps }) => `${height} lines at ${rate(bps)}`).join(", ") : "Nothing: nobody needs it now";
  return { name: `Your ${SOURCES[source] ?? "video"}`, now, why: SENT_LIMITS[limit] ?? "Nothing limits it.", isLimited: limit in SENT_LIMITS };
}

function list(id, rows) {
  const root = byId(id);
  while (root.children.length > rows.length) root.lastElementChild.remove();
  rows.forEach(({ name, now, why, isLimited }, index) => {
    const row = root.children[index] ?? root.appendChild(el("li", {}, el("strong"), el("span"), el("span", { class: "why" })));
    setText(row.children[0], name);
    setText(row.children[1], now);
    setText(row.children[2], why);
    row.classList.toggle("is-limited", isLimited);
  });
}

function path({ protocol, isRelayed, rttMs, lossShare }) {
  const over = protocol ? `over ${isRelayed ? "a TURN server" : protocol.toUpperCase()}` : "";
  const parts = [over, rttMs === null ? "" : `${Math.round(rttMs)} ms there and back`, lossShare === null ? "" : `${(lossShare * 100).toFixed(1)} % lost`];
  return parts.filter(Boolean).join(", ") || "Nothing is received now.";
}

function size({ width, height }) {
  return width && height ? `${width} × ${height}` : "size unknown";
}

export function rate(bps) {
  if (bps >= 999_500) return `${(bps / 1e6).toFixed(1)} Mbit/s`;
  return `${Math.round(bps / 1000)} kbit/s`;
}

/** The icons, drawn on a 24 × 24 grid as strokes; `fill` paths are filled. */

import { svg } from "./dom.js";

const PATHS = {
  mic: ["M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3z", "M5.5 11a6.5 6.5 0 0 0 13 0", "M12 17.5V21"],
  micOff: [
    "M9 8.5V11a3 3 0 0 0 4.7 2.5M15 10.6V6a3 3 0 0 0-5.7-1.3",
    "M5.5 11a6.5 6.5 0 0 0 10.3 5.3M18.5 11a6.4 6.4 0 0 1-.6 2.7",
    "M12 17.5V21",
    "M4 4l16 16",
  ],
  camera: ["M5.2 6.5h7.6A2.2 2.2 0 0 1 15 8.7v6.6a2.2 2.2 0 0 1-2.2 2.2H5.2A2.2 2.2 0 0 1 3 15.3V8.7A2.2 2.2 0 0 1 5.2 6.5z", "M15 11l4.3-2.7a1.1 1.1 0 0 1 1.7.9v5.6a1.1 1.1 0 0 1-1.7.9L15 13"],
  cameraOff: [
    "M7.5 6.5h5.3A2.2 2.2 0 0 1 15 8.7V11l4.3-2.7a1.1 1.1 0 0 1 1.7.9v5.6a1.1 1.1 0 0 1-1 1.1",
    "M14.6 16.6a2.2 2.2 0 0 1-1.8.9H5.2A2.2 2.2 0 0 1 3 15.3V8.7c0-.7.3-1.3.8-1.7",
    "M4 4l16 16",
  ],
  screen: ["M5 5h14a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V7a2 2 0 0 1 2-2z", "M9 20.5h6", "M12 13.8V8.5M9.7 10.6L12 8.3l2.3 2.3"],
  chat: ["M5.5 4.5h13A2.5 2.5 0 0 1 21 7v7a2.5 2.5 0 0 1-2.5 2.5H11l-4.5 3.7v-3.7h-1A2.5 2.5 0 0 1 3 14V7a2.5 2.5 0 0 1 2.5-2.5z", "M8 9h8M8 12.5h5"],
  pause: ["M9 5.5v13M15 5.5v13"],
  pulse: ["M3.5 19.5V15M9 19.5V11M14.5 19.5V13M20 19.5V5"],
  link: ["M10 13.8a4.1 4.1 0 0 0 5.8 0l2.9-2.9a4.1 4.1 0 0 0-5.8-5.8l-.9.9", "M14 10.2a4.1 4.1 0 0 0-5.8 0l-2.9 2.9a4.1 4.1 0 0 0 5.8 5.8l.9-.9"],
  settings: ["M4 8h8.5M17.5 8H20M4 16h2.5M11.5 16H20", "M15 5.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5z", "M9 13.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5z"],
  lock: ["M7 11V8a5 5 0 0 1 10 0v3", "M6.5 11h11A1.5 1.5 0 0 1 19 12.5v6a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 5 18.5v-6A1.5 1.5 0 0 1 6.5 11z"],
  people: ["M9 4.8a3.2 3.2 0 1 1 0 6.4 3.2 3.2 0 0 1 0-6.4z", "M3 19c.5-3 2.9-4.8 6-4.8s5.5 1.8 6 4.8", "M15.5 5.2a3.1 3.1 0 0 1 0 5.7M17.8 14.8c1.7.7 2.9 2.2 3.2 4.2"],
  send: ["M4.5 12L4 5.2a.7.7 0 0 1 1-.7l15 7a.6.6 0 0 1 0 1l-15 7a.7.7 0 0 1-1-.7L4.5 12zM4.5 12H12"],
  close: ["M6 6l12 12M18 6L6 18"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  alert: ["M12 4l8.7 15.2H3.3L12 4z", "M12 10v4M12 16.7v.1"],
  speaker: ["M4 9.5v5h3.5L12 18.5v-13L7.5 9.5H4z", "M15.5 9a4.2 4.2 0 0 1 0 6M18 6.5a7.8 7.8 0 0 1 0 11"],
  leave: ["fill:M3.3 14.3C2.6 10.3 6.9 7.2 12 7.2s9.4 3.1 8.7 7.1c-.2 1-1 1.5-2 1.3l-2.7-.6c-.8-.2-1.3-.8-1.3-1.6v-1.5a9.8 9.8 0 0 0-5.4 0v1.5c0 .8-.5 1.4-1.3 1.6l-2.7.6c-1 .2-1.8-.3-2-1.3z"],
};

// Two sheets of cloth, one seen through the other, that meet in a V.
const MARK = [
  { d: "M2.5 5h6.2c3.1 0 5.2 1.9 6.4 5.1L20.5 27h-3.8c-2.6 0-4.3-1.3-5.3-3.9z", opacity: "0.95" },
  { d: "M29.5 5h-6.2c-3.1 0-5.2 1.9-6.4 5.1L11.5 27h3.8c2.6 0 4.3-1.3 5.3-3.9z", opacity: "0.5" },
];

/** Return the icon of this name, 24 px, in the colour of its text. Decoration: the button beside it has the name. */
export function icon(name) {
  const drawn = PATHS[name].map((path) =>
    path.startsWith("fill:")
      ? svg("path", { d: path.slice(5), fill: "currentColor", stroke: "none" })
      : svg("path", { d: path }),
  );
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", "data-name": name }, ...drawn);
}

/** Return the mark. */
export function mark() {
  const sheets = MARK.map(({ d, opacity }) => svg("path", { d, opacity, fill: "currentColor" }));
  return svg("svg", { viewBox: "0 0 32 32", class: "mark", "aria-hidden": "true" }, ...sheets);
}

/** Put the icon into an element, instead of the one that is there. */
export function setIcon(element, name) {
  const old = element.querySelector("svg");
  if (old?.dataset.name === name) return;
  if (old) old.replaceWith(icon(name));
  else element.prepend(icon(name));
}

/** Draw every `data-icon` and `data-mark` of the page's markup. */
export function drawAll(root) {
  for (const element of root.querySelectorAll("[data-icon]")) setIcon(element, element.dataset.icon);
  for (const element of root.querySelectorAll("[data-mark]")) element.prepend(mark());
}

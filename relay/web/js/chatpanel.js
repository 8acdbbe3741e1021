/** The chat panel: a list, a field, a badge. */

import { byId, el, setText } from "./dom.js";

const LINK = /https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]]/g;

/** Wire the panel. Returns what renders it. */
export function chatPanel(store, chat) {
  const list = byId("chat-list");
  const field = byId("chat-text");
  const form = byId("chat-form");
  let drawn = [];

  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight, 120)}px`;
  };
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    // Enter ends a word in input methods; only the one after that sends.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    chat.say(field.value);
    field.value = "";
    grow();
  });

  return ({ messages, unread, panel, canChat }) => {
    const badge = byId("call-unread");
    badge.hidden = unread === 0;
    setText(badge, unread > 9 ? "9+" : String(unread));
    form.hidden = !canChat;
    byId("chat-empty").hidden = messages.length > 0;
    if (panel === "chat" && unread) store.update({ unread: 0 });
    if (messages === drawn) return;
    // Old messages fall off the front, new ones come at the end.
    if (messages.length === 0 || messages[0] !== drawn[0]) list.replaceChildren();
    for (let index = list.childElementCount; index < messages.length; index++) {
      list.append(item(messages[index], messages[index - 1]));
    }
    drawn = messages;
    list.scrollTop = list.scrollHeight;
  };
}

function item({ from, name, text, atMs, isMine }, before) {
  const follows = before && before.from === from && before.isMine === isMine && atMs - before.atMs < 120_000;
  const time = new Date(atMs).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const head = follows ? null : el("p", { class: "chat-head" }, el("strong", { text: isMine ? "You" : name }), el("time", { text: time }));
  return el("li", { class: isMine ? "is-mine" : "" }, head, el("p", { class: "chat-text" }, ...withLinks(text)));
}

/** Return text and links; nothing in a message becomes markup. */
function withLinks(text) {
  const parts = [];
  let at = 0;
  for (const { 0: href, index } of text.matchAll(LINK)) {
    parts.push(text.slice(at, index), el("a", { href, target: "_blank", rel: "noopener noreferrer", text: href }));
    at = index + href.length;
  }
  return [...parts, text.slice(at)];
}

/** What went wrong, in words that say what to do about it. */

import { CannotEncrypt } from "./e2ee/errors.js";

/** The server answered and said no. `status` is HTTP's, 0 where the refusal came inside the protocol. */
export class SignalRefused extends Error {
  constructor(code, status, sentence = "", reason = "") {
    super(sentence || code);
    this.status = status;
    this.sentence = sentence;
    this.reason = reason;
  }
}

/** The server knows the session no more that was to be resumed. `mayRejoin`: a new one may begin. */
export class SessionOver extends SignalRefused {
  constructor({ action = "DISCONNECT", reason = "UNKNOWN_REASON" }) {
    super("over", 0, "", reason);
    this.mayRejoin = action !== "DISCONNECT";
  }
}

/** The server did not answer, or not as a relay does. */
export class SignalUnreachable extends Error {}

/** The page is hosted where no calls can be made; the message says why, to who hosts it. */
export class NotSetUp extends Error {}

/** Signalling works, media does not get through. */
export class MediaUnreachable extends Error {}

/** Return {title, text} for a failed attempt to join. */
export function joinProblem(error) {
  if (error instanceof CannotEncrypt) {
    return {
      title: "This browser cannot encrypt calls",
      text: "What you send would be readable for the server, so you were not let in. Update the browser, or use another one.",
    };
  }
  if (error instanceof MediaUnreachable) {
    return {
      title: "Audio and video cannot get through",
      text: "The server answers, but your network blocks its media port (UDP). Try another network, or turn off the VPN.",
    };
  }
  if (error instanceof NotSetUp) return { title: "This page is not set up for calls", text: error.message };
  if (!(error instanceof SignalRefused)) {
    return {
      title: "The server cannot be reached",
      text: navigator.onLine
        ? "It may be restarting, or a firewall is in the way. Wait a moment and try again."
        : "This device is offline. Check the connection and try again.",
    };
  }
  const { status, sentence } = error;
  if (status === 0) return endedBecause(error.reason);
  if (status === 401 && /expired/i.test(sentence)) {
    return { title: "This link has expired", text: "Ask the person who invited you for a new one." };
  }
  if (status === 401) {
    return { title: "This link does not open the room", text: `Ask for a new one. ${sentence}` };
  }
  if (status === 404) {
    return { title: "An invite link is needed", text: "This server lets people in by invite link only. Ask for one." };
  }
  if (isFull(error)) {
    return { title: "The room is full", text: `${sentence} Try again when somebody has left.` };
  }
  if (status === 429) {
    return { title: "Too many at once", text: `${sentence} Wait a minute, then try again.` };
  }
  if (status >= 500) {
    return { title: "The server cannot take you in now", text: sentence || "Try again in a moment." };
  }
  return { title: "The room refused you", text: sentence || `The server answered with status ${status}.` };
}

/** True when trying again cannot help: the server understood, and said no. */
export function isFinal(error) {
  if (error instanceof SessionOver) return !error.mayRejoin;
  if (!(error instanceof SignalRefused) || isFull(error)) return false;
  return error.status >= 400 && error.status < 500 && error.status !== 429;
}

/** True when the server said that the room has no place now. */
function isFull({ status, sentence }) {
  return status === 403 && /^the room is full/i.test(sentence);
}

const ENDS = {
  DUPLICATE_IDENTITY: ["You joined from another place", "The call goes on there; one person is in a room once.", true],
  PARTICIPANT_REMOVED: ["You were removed from the call", "Somebody who runs this room ended your stay.", false],
  ROOM_DELETED: ["The room was closed", "The call is over for everybody.", false],
  ROOM_CLOSED: ["The room was closed", "The call is over for everybody.", false],
  SERVER_SHUTDOWN: ["The server is shutting down", "Try again in a moment; it may only be restarting.", true],
  CONNECTION_TIMEOUT: [
    "The connection did not come about",
    "Audio and video did not get through (UDP). Try another network, or turn off the VPN.",
    true,
  ],
};

/** Return {title, text, canRejoin} for a call that the server ended. */
export function endedBecause(reason) {
  const [title, text, canRejoin] = ENDS[reason] ?? ["The call ended", "The server closed the connection.", true];
  return { title, text, canRejoin };
}

const THINGS = {
  microphone: ["microphone", "is", "it"],
  camera: ["camera", "is", "it"],
  screenShare: ["screen", "is", "it"],
  both: ["camera and microphone", "are", "them"],
};

/** Return {name, title, text, canRetry} for a device that could not be opened; `both` for two with one reason. */
export function deviceProblem(source, error) {
  const [thing, is, it] = THINGS[source];
  const named = thing[0].toUpperCase() + thing.slice(1);
  const name = error?.name ?? "";
  const problem = (title, text, canRetry = true) => ({ name, title, text, canRetry });
  switch (name) {
    case "InsecureContext":
      return problem(
        "This page needs HTTPS",
        "Browsers give camera and microphone to secure pages only. Open this address with https://, or on the "
          + "server's own machine as http://localhost. You can still join to watch and listen.",
        false,
      );
    case "NotAllowedError":
    case "SecurityError":
      return problem(
        `${named} ${is} blocked`,
        `Allow the ${thing} for this page: by the icon beside the address, or in your system's privacy settings.`,
      );
    case "NotFoundError":
    case "OverconstrainedError":
      return problem(`No ${thing} found`, `Plug ${it} in or switch ${it} on, then try again.`);
    case "NotReadableError":
    case "AbortError":
      return problem(`${named} ${is} in use`, `Another app or tab holds ${it}. Close it there, then try again.`);
    default:
      return problem(`${named} did not start`, `The browser says: ${error?.message || name || "nothing"}.`);
  }
}

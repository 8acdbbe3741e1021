/** All state of the page, in one place. Whoever shows something subscribes; whoever learns something updates. */

export function createStore(initial) {
  let state = initial;
  let isQueued = false;
  const listeners = new Set();

  function tell() {
    isQueued = false;
    for (const listener of listeners) listener(state);
  }

  return {
    get state() {
      return state;
    },

    /** Merge a patch, or what a function makes of the state. Listeners hear of it once per turn of the event loop. */
    update(patch) {
      state = { ...state, ...(typeof patch === "function" ? patch(state) : patch) };
      if (!isQueued) {
        isQueued = true;
        queueMicrotask(tell);
      }
    },

    /** Call `listener` with the state, now and after every change. Returns a function that ends it. */
    subscribe(listener) {
      listeners.add(listener);
      listener(state);
      return () => listeners.delete(listener);
    },
  };
}

/** The state before anything happened. Maps and sets in it are replaced, never changed. */
export function initialState() {
  return {
    screen: "loading", // loading · invite · prejoin · call · ended
    dev: false,
    invite: "",
    secret: null, // {format, key | passphrase} that the people of this call share; never stored or sent
    needsPassphrase: false, // the link says that there is one
    isSealed: false, // everything this browser encodes was seen to be sealed
    hasLeaked: false, // in this stay the browser sent what it had not sealed
    locks: new Map(), // track sid of somebody else → locked · missing · mismatch
    room: "",
    name: "",
    isJoining: false,
    joinProblem: null,
    connection: "idle", // idle · connecting · connected · resuming · reconnecting
    ended: null, // {title, text, canRejoin}
    me: "", // our participant sid
    canPublish: true,
    canChat: true,
    participants: new Map(), // sid → {sid, identity, name, joinedAtMs, isLocal, tracks: [{sid, source, kind, muted}]}
    streams: new Map(), // track sid → MediaStream
    paused: new Set(), // track sids of videos that our connection has no room for
    speaking: new Set(), // participant sids
    isAudioBlocked: false,
    microphone: { on: false, busy: false, problem: null },
    camera: { on: false, busy: false, problem: null },
    screenShare: { on: false, busy: false, problem: null },
    devices: { audioinput: [], videoinput: [], audiooutput: [] },
    chosen: { audioinput: "", videoinput: "", audiooutput: "" },
    localCamera: null, // MediaStream
    localScreen: null,
    panel: "", // "" · chat · settings
    messages: [], // {id, from, name, text, atMs, isMine}
    unread: 0,
    notices: [], // {id, kind: info · problem, text}
  };
}

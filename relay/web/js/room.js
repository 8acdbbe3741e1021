/**
 * One stay in a room: joins, keeps the store in step with what the relay says, comes back after a broken connection.
 *
 * Coming back is a new socket for the same session where that is possible, and nobody notices; else it is a full join, for which
 * local tracks live on and are published anew.
 */

import { qualityOf } from "./api.js";
import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { SessionOver, SignalRefused, SignalUnreachable, endedBecause, isFinal, joinProblem } from "./errors.js";
import { merge, speakersOf } from "./roster.js";
import { Signal } from "./signal.js";

const RETRY_MS = [0, 300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000, 7_000, 7_000];
// Where media never got through, one more attempt is enough to say so.
const FIRST_TRIES = 1;
const SPEAKING_INTERVAL_MS = 200;

export class Room {
  #store;
  #media;
  #credentials;
  #token = "";
  #connection = null;
  #secret = null; // Of this stay, whatever the address says meanwhile.
  #speakingTimer;
  #noticeCount = 0;
  #wasConnected = false; // Ever, in this stay.
  #failures = 0;
  #wake = () => {};
  #isOver = true;
  #run = 0; // Counts connections, so that events of an old one are told apart.

  /** `credentials()` fetches a token from the server. */
  constructor(store, media, credentials) {
    this.#store = store;
    this.#media = media;
    this.#credentials = credentials;
    this.chat = new Chat(store, (packet) => this.#connection?.publisher?.send(packet));
    this.chat.onNotice = (text) => this.#notice("problem", text);
    media.onChange = () => this.#sync();
    window.addEventListener("online", () => this.#wake());
    window.addEventListener("pagehide", () => this.leave());
  }

  /** Join; the store tells how it went. */
  async join() {
    this.#isOver = false;
    this.#failures = 0;
    this.#wasConnected = false;
    this.#token = "";
    this.#secret = this.#store.state.secret;
    this.#store.update({ isJoining: true, joinProblem: null, connection: "connecting", hasLeaked: false });
    try {
      await this.#connect();
      this.#store.update({ isJoining: false, screen: "call", ended: null });
    } catch (error) {
      this.#tearDown();
      this.#isOver = true;
      this.#store.update({ isJoining: false, joinProblem: joinProblem(error), connection: "idle" });
    }
  }

  leave() {
    if (this.#isOver) return;
    this.#connection?.leave();
    this.#finish({ title: "You left the call", text: "", canRejoin: true });
  }

  /** Say how large videos are shown: [{sids, width, height} or {sids, disabled}]. */
  show(settings) {
    for (const { sids, ...wanted } of settings) this.#connection?.send({ trackSetting: { trackSids: sids, ...wanted } });
  }

  /** Return [sent, received, told]: the browser's statistics of both directions, and the relay's account of quality. */
  inspect = () => {
    const { publisher, subscriber } = this.#connection ?? {};
    return Promise.all([publisher?.inspect() ?? {}, subscriber?.inspect() ?? {}, qualityOf(this.#token)]);
  };

  async #connect() {
    if (!this.#token) {
      const given = await this.#credentials();
      this.#token = given.token;
      this.#store.update({ room: given.room, identity: given.identity });
    }
    const run = ++this.#run;
    const { signal, join } = await Signal.connect(this.#token);
    if (this.#isOver || run !== this.#run) {
      signal.leave();
      return;
    }
    const permission = join.participant.permission ?? {};
    this.#store.update({
      room: join.room?.name ?? this.#store.state.room,
      me: join.participant.sid,
      canPublish: Boolean(permission.canPublish),
      canChat: Boolean(permission.canPublishData),
      participants: new Map(),
      streams: new Map(),
      paused: new Set(),
      locks: new Map(),
      isSealed: false,
    });
    this.#onParticipants([join.participant, ...(join.otherParticipants ?? [])]);
    try {
      this.#connection = new Connection({ signal, join, secret: this.#secret, room: this.#hooks() });
    } catch (error) {
      signal.leave();
      throw error;
    }
    this.chat.e2ee = this.#connection.e2ee;
    this.#speakingTimer = setInterval(() => this.#listen(), SPEAKING_INTERVAL_MS);
    this.#connection.begin();
    this.#sync();
  }

  #hooks() {
    const handlers = {
      update: (participants) => this.#onParticipants(participants),
      requestResponse: (response) => this.#onRefused(response),
      trackUnpublished: (ended) => this.#onUnpublished(ended),
      mute: ({ sid, muted = false }) => this.#onRemoteMute(sid, muted),
      refreshToken: (token) => (this.#token = token),
      streamStateUpdate: ({ streamStates = [] }) => this.#onStreamStates(streamStates),
      leave: (leave) => this.#onLeave(leave),
    };
    return {
      onMessage: (kind, body) => handlers[kind](body),
      onUp: () => this.#onUp(),
      onLost: (error, mayResume) => this.#lost(error, mayResume),
      onTrack: (sid, stream) => this.#onTrack(sid, stream),
      onData: (data) => this.chat.onData(data, this.#store.state.participants),
      onLock: (sid, lock) => this.#onLock(sid, lock),
      onSealed: (isSealed) => this.#onSealed(isSealed),
      onLeak: (cid) => this.#onLeak(cid),
      trackOf: (sid) => this.#trackOf(sid),
      receiveStates: () => this.chat.received.states(),
    };
  }

  #onLeave({ action = "DISCONNECT", canReconnect = false, reason = "UNKNOWN_REASON" }) {
    if (action !== "DISCONNECT" || canReconnect) {
      this.#connection?.lose(new SignalUnreachable(reason), action === "RESUME");
    } else {
      this.#finish(endedBecause(reason));
    }
  }

  #onUp() {
    this.#wasConnected = true;
    this.#failures = 0;
    this.#store.update({ connection: "connected" });
  }

  /** The connection is gone: resume it or join again, and again, until it works or there is no point. */
  async #lost(error, mayResume) {
    if (this.#isOver) return;
    const run = ++this.#run;
    if (!mayResume) this.#tearDown();
    this.#tellLost();
    for (let why = error; ; ) {
      if (this.#failures >= (this.#wasConnected ? RETRY_MS.length : FIRST_TRIES) || isFinal(why)) {
        this.#finish({ ...joinProblem(why), canRejoin: true });
        return;
      }
      await this.#pause(RETRY_MS[this.#failures++]);
      if (this.#isOver || run !== this.#run) return;
      try {
        await (this.#connection ? this.#connection.resume(this.#token) : this.#connect());
        return;
      } catch (failure) {
        if (this.#isOver) return;
        why = this.#afterFailure(failure, error);
        this.#run = run;
      }
    }
  }

  /** Give up what cannot be kept after a failed attempt; returns what to say if it was the last. */
  #afterFailure(failure, first) {
    if (failure instanceof SessionOver && !failure.mayRejoin) return failure;
    const isRefused = failure instanceof SignalRefused && failure.status < 500 && failure.status !== 429;
    const wasResumed = this.#connection !== null;
    // A server that cannot be reached now may still hold the session; one that says no does not.
    if (isRefused || !wasResumed) this.#tearDown();
    this.#tellLost();
    if (!isRefused) return failure;
    // Tokens end; the invite that gave this one may still be good for another.
    if (failure.status === 401 && this.#token) {
      this.#token = "";
      return first;
    }
    return wasResumed ? first : failure;
  }

  /** Pictures and sound may go on while a session is resumed; of one that is joined anew they stand still. */
  #tellLost() {
    this.#store.update(this.#connection ? { connection: "resuming" } : { connection: "reconnecting", speaking: new Set() });
  }

  /** Wait, or until the network comes back. */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #tearDown() {
    clearInterval(this.#speakingTimer);
    this.#connection?.close();
    this.#connection = null;
  }

  #finish(ended) {
    this.#isOver = true;
    this.#run++;
    this.#tearDown();
    this.#media.close();
    this.chat.clear();
    this.#store.update({
      screen: "ended",
      ended,
      connection: "idle",
      participants: new Map(),
      streams: new Map(),
      paused: new Set(),
      speaking: new Set(),
      panel: "",
      isAudioBlocked: false,
    });
  }

  #sync() {
    const publisher = this.#connection?.publisher;
    if (!publisher || !this.#store.state.canPublish) return;
    for (const source of ["microphone", "camera", "screenShare"]) {
      publisher.sync(source, this.#media.tracks[source], this.#store.state[source].on);
    }
  }

  #onParticipants(infos) {
    this.#store.update((state) => merge(state, infos));
  }

  #onTrack(sid, stream) {
    this.#store.update((state) => ({ streams: new Map(state.streams).set(sid, stream) }));
  }

  #trackOf(sid) {
    for (const { identity, tracks } of this.#store.state.participants.values()) {
      const track = tracks.find((candidate) => candidate.sid === sid);
      if (track) return { ...track, identity };
    }
    return null;
  }

  #onLock(sid, lock) {
    if (this.#store.state.locks.get(sid) === lock) return;
    this.#store.update((state) => ({ locks: new Map(state.locks).set(sid, lock) }));
  }

  #onSealed(isSealed) {
    if (this.#store.state.isSealed !== isSealed) this.#store.update({ isSealed });
  }

  /** The browser sends frames that were not sealed: better nothing than that. */
  #onLeak(cid) {
    const source = this.#connection?.publisher?.stop(cid);
    if (!source) return;
    this.#media.set(source, false);
    this.#store.update({ hasLeaked: true });
    this.#notice("problem", `Your ${source} was stopped: this browser did not encrypt all of it.`);
  }

  #onRefused({ reason = "OK", message = "", addTrack }) {
    if (reason === "OK" || !addTrack) return;
    const source = this.#connection?.publisher?.onRefused(addTrack);
    this.#notice("problem", message || "The server refused a track.");
    if (source) this.#media.set(source, false);
  }

  #onUnpublished(ended) {
    this.#notice("problem", "The server stopped one of your tracks.");
    const stop = () => {
      const source = this.#connection?.publisher?.onUnpublished(ended);
      if (source) this.#media.set(source, false);
    };
    // Perhaps for frames in clear: then the self-test has to see them, and stops it itself.
    setTimeout(stop, this.#connection?.e2ee.looksForMs);
  }

  /** Videos for which our connection has no room, or has again. */
  #onStreamStates(states) {
    const paused = new Set([...this.#store.state.paused].filter((sid) => this.#trackOf(sid)));
    for (const { trackSid, state = "ACTIVE" } of states) {
      if (state === "PAUSED" && this.#trackOf(trackSid)) paused.add(trackSid);
      else paused.delete(trackSid);
    }
    this.#store.update({ paused });
  }

  /** Somebody who runs the room muted us; unmuting is up to this person again. */
  #onRemoteMute(sid, muted) {
    const { me, participants } = this.#store.state;
    const track = participants.get(me)?.tracks.find((candidate) => candidate.sid === sid);
    if (!muted || !track) return;
    this.#media.set(track.source, false);
    this.#notice("info", `Your ${track.source} was turned off by a moderator.`);
  }

  #listen() {
    const levels = this.#connection?.subscriber?.levels();
    if (!levels) return;
    const { participants, speaking } = this.#store.state;
    const now = speakersOf(participants, levels);
    if (now.size !== speaking.size || [...now].some((sid) => !speaking.has(sid))) this.#store.update({ speaking: now });
  }

  #notice(kind, text) {
    // A refused track is answered and told as a message: once is enough.
    if (this.#store.state.notices.at(-1)?.text === text) return;
    this.#store.update((state) => ({ notices: [...state.notices, { id: ++this.#noticeCount, kind, text }] }));
  }
}

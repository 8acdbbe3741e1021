/**
 * One stay in a room: joins, keeps the store in step with what the relay says, comes back after a broken connection.
 *
 * Coming back is always a full join: the relay knows no resume. Local tracks live on meanwhile and are published anew.
 */

import { qualityOf } from "./api.js";
import { Chat } from "./chat.js";
import { E2ee } from "./e2ee/e2ee.js";
import { MediaUnreachable, SignalRefused, SignalUnreachable, endedBecause, isFinal, joinProblem } from "./errors.js";
import { Publisher } from "./publisher.js";
import { merge } from "./roster.js";
import { Signal } from "./signal.js";
import { Subscriber } from "./subscriber.js";

const CONNECT_TIMEOUT_MS = 15_000;
// ICE may find its way back by itself; longer than this people notice.
const DISCONNECTED_MS = 4_000;
const RETRY_MS = [0, 300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000, 7_000, 7_000];
// Where media never got through, one more attempt is enough to say so.
const FIRST_TRIES = 1;
const SPEAKING_INTERVAL_MS = 200;
// About -40 dBov: above breath, below speech.
const SPEAKING_LEVEL = 0.01;

export class Room {
  #store;
  #media;
  #credentials;
  #token = "";
  #signal = null;
  #publisher = null;
  #subscriber = null;
  #e2ee = null;
  #secret = null; // Of this stay, whatever the address says meanwhile.
  #connectTimer;
  #disconnectTimers = new Map();
  #speakingTimer;
  #noticeCount = 0;
  #isConnected = false;
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
    this.chat = new Chat(store, (bytes) => this.#publisher?.send(bytes));
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
    this.#signal?.leave();
    this.#finish({ title: "You left the call", text: "", canRejoin: true });
  }

  /** Say how large videos are shown: [{sids, width, height} or {sids, disabled}]. */
  show(settings) {
    for (const { sids, ...wanted } of settings) this.#signal?.send({ trackSetting: { trackSids: sids, ...wanted } });
  }

  /** Return [sent, received, told]: the browser's statistics of both directions, and the relay's account of quality. */
  inspect = () => Promise.all([this.#publisher?.inspect() ?? {}, this.#subscriber?.inspect() ?? {}, qualityOf(this.#token)]);

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
    this.#signal = signal;
    this.#isConnected = false;
    const permission = join.participant.permission ?? {};
    this.#store.update({
      room: join.room?.name ?? this.#store.state.room,
      me: join.participant.sid,
      canPublish: Boolean(permission.canPublish),
      canChat: Boolean(permission.canPublishData),
      participants: new Map(),
      streams: new Map(),
      locks: new Map(),
      isSealed: false,
    });
    this.#onParticipants([join.participant, ...(join.otherParticipants ?? [])]);
    const e2ee = (this.#e2ee = this.chat.e2ee = new E2ee(this.#secret, {
      onLock: (sid, lock) => run === this.#run && this.#onLock(sid, lock),
      onSealed: (isSealed) => run === this.#run && this.#onSealed(isSealed),
      onLeak: (cid) => run === this.#run && this.#onLeak(cid),
    }));
    const { identity = "" } = join.participant;
    const shared = { signal, e2ee, identity, iceServers: (join.iceServers ?? []).map(iceServer) };
    const failed = (error) => run === this.#run && this.#lost(error);
    if (permission.canPublish || permission.canPublishData) {
      const onState = (state) => this.#onState(run, "publisher", state, !join.subscriberPrimary);
      this.#publisher = new Publisher({ ...shared, onState, onFailed: failed });
    }
    if (join.subscriberPrimary) {
      this.#subscriber = new Subscriber({
        ...shared,
        onState: (state) => this.#onState(run, "subscriber", state, true),
        trackOf: (sid) => this.#trackOf(sid),
        onTrack: (sid, stream) => run === this.#run && this.#onTrack(sid, stream),
        onData: (data) => run === this.#run && this.chat.onData(data, this.#store.state.participants),
        onFailed: failed,
      });
    }
    this.#connectTimer = setTimeout(() => failed(new MediaUnreachable()), CONNECT_TIMEOUT_MS);
    this.#speakingTimer = setInterval(() => this.#listen(), SPEAKING_INTERVAL_MS);
    signal.start(this.#handlers(), () => failed(new SignalUnreachable()));
    this.#publisher?.open();
    this.#sync();
  }

  #handlers() {
    return {
      answer: (answer) => this.#publisher?.onAnswer(answer),
      offer: (offer) => this.#subscriber?.onOffer(offer),
      update: ({ participants = [] }) => this.#onParticipants(participants),
      trackPublished: (published) => this.#publisher?.onPublished(published),
      requestResponse: (response) => this.#onRefused(response),
      trackUnpublished: () => this.#notice("problem", "The server stopped one of your tracks."),
      mute: ({ sid, muted = false }) => this.#onRemoteMute(sid, muted),
      refreshToken: (token) => (this.#token = token),
      leave: (leave) => this.#onLeave(leave),
    };
  }

  #onLeave({ action = "DISCONNECT", canReconnect = false, reason = "UNKNOWN_REASON" }) {
    if (action === "RECONNECT" || action === "RESUME" || canReconnect) {
      this.#lost(new SignalUnreachable(reason));
    } else {
      this.#signal?.close();
      this.#finish(endedBecause(reason));
    }
  }

  #onState(run, which, state, isPrimary) {
    if (run !== this.#run) return;
    clearTimeout(this.#disconnectTimers.get(which));
    if (state === "connected" && isPrimary && !this.#isConnected) {
      clearTimeout(this.#connectTimer);
      this.#isConnected = this.#wasConnected = true;
      this.#failures = 0;
      this.#store.update({ connection: "connected" });
    } else if (state === "failed") {
      this.#lost(new MediaUnreachable());
    } else if (state === "disconnected") {
      this.#disconnectTimers.set(
        which,
        setTimeout(() => run === this.#run && this.#lost(new MediaUnreachable()), DISCONNECTED_MS),
      );
    }
  }

  /** The connection is gone: join again, and again, until it works or there is no point. */
  async #lost(error) {
    if (this.#isOver) return;
    const run = ++this.#run;
    this.#tearDown();
    this.#store.update({ connection: "reconnecting", speaking: new Set() });
    for (let why = error; ; ) {
      if (this.#failures >= (this.#wasConnected ? RETRY_MS.length : FIRST_TRIES) || isFinal(why)) {
        this.#finish({ ...joinProblem(why), canRejoin: true });
        return;
      }
      await this.#pause(RETRY_MS[this.#failures++]);
      if (this.#isOver || run !== this.#run) return;
      try {
        await this.#connect();
        return;
      } catch (failure) {
        if (this.#isOver) return;
        this.#tearDown();
        why = failure;
        // Tokens end; the invite that gave this one may still be good for another.
        if (why instanceof SignalRefused && why.status === 401 && this.#token) {
          this.#token = "";
          why = error;
        }
        this.#run = run;
      }
    }
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
    clearTimeout(this.#connectTimer);
    clearInterval(this.#speakingTimer);
    for (const timer of this.#disconnectTimers.values()) clearTimeout(timer);
    for (const part of [this.#signal, this.#publisher, this.#subscriber, this.#e2ee]) part?.close();
    this.#signal = this.#publisher = this.#subscriber = this.#e2ee = null;
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
      speaking: new Set(),
      panel: "",
      isAudioBlocked: false,
    });
  }

  #sync() {
    if (!this.#publisher || !this.#store.state.canPublish) return;
    for (const source of ["microphone", "camera", "screenShare"]) {
      this.#publisher.sync(source, this.#media.tracks[source], this.#store.state[source].on);
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
    const source = this.#publisher?.stop(cid);
    if (!source) return;
    this.#media.set(source, false);
    this.#store.update({ hasLeaked: true });
    this.#notice("problem", `Your ${source} was stopped: this browser did not encrypt all of it.`);
  }

  #onRefused({ reason = "OK", message = "", addTrack }) {
    if (reason === "OK" || !addTrack) return;
    const source = this.#publisher?.onRefused(addTrack);
    this.#notice("problem", message || "The server refused a track.");
    if (source) this.#media.set(source, false);
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
    const levels = this.#subscriber?.levels();
    if (!levels) return;
    const { participants, speaking } = this.#store.state;
    const now = new Set();
    for (const { sid, tracks } of participants.values()) {
      if (tracks.some((track) => !track.muted && (levels.get(track.sid) ?? 0) > SPEAKING_LEVEL)) now.add(sid);
    }
    if (now.size !== speaking.size || [...now].some((sid) => !speaking.has(sid))) this.#store.update({ speaking: now });
  }

  #notice(kind, text) {
    // A refused track is answered and told as a message: once is enough.
    if (this.#store.state.notices.at(-1)?.text === text) return;
    this.#store.update((state) => ({ notices: [...state.notices, { id: ++this.#noticeCount, kind, text }] }));
  }
}

const iceServer = ({ urls = [], username, credential }) => (username ? { urls, username, credential } : { urls });

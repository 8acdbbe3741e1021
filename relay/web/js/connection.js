/**
 * One session at the relay: its signalling socket, both peer connections and the keys.
 *
 * The socket may be lost while pictures and sound go on. Another one then takes its place (`resume`), and new ICE credentials
 * find the way over whatever network there is by then; the session, its tracks and its keys stay what they are.
 */

import { E2ee } from "./e2ee/e2ee.js";
import { MediaUnreachable, SignalUnreachable } from "./errors.js";
import { Publisher } from "./publisher.js";
import { Signal } from "./signal.js";
import { Subscriber } from "./subscriber.js";

const CONNECT_TIMEOUT_MS = 15_000;
// ICE may find its way back by itself; longer than this people notice.
const DISCONNECTED_MS = 4_000;

export class Connection {
  publisher = null;
  subscriber = null;
  e2ee;
  #signal;
  #me;
  #pings;
  #room;
  #primary;
  #states = new Map(); // publisher · subscriber → how its peer connection is
  #timer;
  #disconnectTimers = new Map();
  #isUp = false; // Media flows, and the relay hears us.
  #wasUp = false;
  #isCut = false;
  #needsAnswer = false;
  #isClosed = false;

  /**
   * `room` hears: onMessage(kind, body), onUp(), onLost(error, mayResume) once until `resume`, onTrack(sid, stream), onData(bytes),
   * onLock, onSealed and onLeak of `E2ee`; and is asked: trackOf(sid), receiveStates().   Throws: CannotEncrypt.
   */
  constructor({ signal, join, secret, room }) {
    const { participant, pingInterval, pingTimeout, subscriberPrimary } = join;
    const tell = (name) => (...facts) => this.#isClosed || room[name](...facts);
    this.e2ee = new E2ee(secret, { onLock: tell("onLock"), onSealed: tell("onSealed"), onLeak: tell("onLeak") });
    this.#signal = signal;
    this.#me = participant.sid;
    this.#pings = { pingInterval, pingTimeout };
    this.#room = room;
    this.#primary = subscriberPrimary ? "subscriber" : "publisher";
    const { permission = {}, identity = "" } = participant;
    const shared = { signal: this, e2ee: this.e2ee, identity, iceServers: serversOf(join) };
    const onFailed = (error) => this.lose(error, false);
    if (permission.canPublish || permission.canPublishData) {
      this.publisher = new Publisher({ ...shared, onFailed, onState: (state) => this.#onState("publisher", state) });
    }
    if (subscriberPrimary) {
      this.subscriber = new Subscriber({
        ...shared,
        onFailed,
        onState: (state) => this.#onState("subscriber", state),
        trackOf: (sid) => room.trackOf(sid),
        onTrack: tell("onTrack"),
        onData: tell("onData"),
      });
    }
  }

  /** Take messages, and connect media. */
  begin() {
    this.#await();
    this.#listen();
    this.publisher?.open();
  }

  /** Say something to the relay; what is said while nobody hears it is said again by who has to. */
  send(request) {
    this.#signal.send(request);
  }

  /** Put a new socket in the place of the lost one.   Errors: SessionOver, SignalRefused, SignalUnreachable. */
  async resume(token) {
    const { signal, reconnect } = await Signal.resume(token, this.#me, this.#pings);
    if (this.#isClosed) {
      signal.leave();
      return;
    }
    this.#signal = signal;
    this.#isCut = false;
    this.#needsAnswer = Boolean(this.publisher);
    this.#await();
    this.#listen();
    if (this.#isCut || this.#isClosed) return;
    this.send({
      syncState: {
        // The exceptions from subscribing to everything: none.
        subscription: { subscribe: false },
        publishTracks: this.publisher?.published() ?? [],
        datachannelReceiveStates: this.#room.receiveStates(),
      },
    });
    const iceServers = serversOf(reconnect);
    this.subscriber?.resume(iceServers);
    this.publisher?.resume(iceServers, reconnect.lastMessageSeq ?? 0);
  }

  /** Say goodbye and close. */
  leave() {
    this.#signal.leave();
    this.close();
  }

  close() {
    this.#isClosed = true;
    this.#stopTimers();
    for (const part of [this.#signal, this.publisher, this.subscriber, this.e2ee]) part?.close();
  }

  #listen() {
    const handlers = {
      answer: (answer) => {
        this.publisher?.onAnswer(answer);
        this.#needsAnswer = false;
        this.#check();
      },
      offer: (offer) => this.subscriber?.onOffer(offer),
      trackPublished: (published) => this.publisher?.onPublished(published),
      subscribedQualityUpdate: (update) => this.publisher?.onWanted(update),
      update: ({ participants = [] }) => {
        this.#room.onMessage("update", participants);
        const me = participants.find(({ sid }) => sid === this.#me);
        if (me?.tracks) this.publisher?.onRoster(me.tracks);
      },
    };
    for (const kind of ["requestResponse", "trackUnpublished", "mute", "refreshToken", "streamStateUpdate", "leave"]) {
      handlers[kind] = (body) => this.#room.onMessage(kind, body);
    }
    this.#signal.start(handlers, () => this.lose(new SignalUnreachable(), true));
  }

  #await() {
    this.#isUp = false;
    this.#stopTimers();
    this.#timer = setTimeout(() => this.lose(new MediaUnreachable(), false), CONNECT_TIMEOUT_MS);
  }

  #onState(which, state) {
    if (this.#isClosed) return;
    this.#states.set(which, state);
    clearTimeout(this.#disconnectTimers.get(which));
    // While media has its time to connect, what was lost before says nothing.
    if (state === "failed") {
      this.lose(new MediaUnreachable(), this.#isUp);
    } else if (state === "disconnected") {
      const timer = setTimeout(() => this.lose(new MediaUnreachable(), this.#isUp), DISCONNECTED_MS);
      this.#disconnectTimers.set(which, timer);
    }
    this.#check();
  }

  #check() {
    const isConnected = this.#states.get(this.#primary) === "connected";
    if (!isConnected || this.#isUp || this.#isCut || this.#needsAnswer || this.#isClosed) return;
    clearTimeout(this.#timer);
    this.#isUp = this.#wasUp = true;
    this.#room.onUp();
  }

  /** This socket is of no more use; `mayResume`: another one may take its place. */
  lose(error, mayResume) {
    if (this.#isClosed || this.#isCut) return;
    this.#isCut = true;
    this.#stopTimers();
    this.#signal.close();
    this.publisher?.pause();
    this.#room.onLost(error, mayResume && this.#wasUp);
  }

  #stopTimers() {
    clearTimeout(this.#timer);
    for (const timer of this.#disconnectTimers.values()) clearTimeout(timer);
  }
}

const serversOf = ({ iceServers = [] }) =>
  iceServers.map(({ urls = [], username, credential }) => (username ? { urls, username, credential } : { urls }));

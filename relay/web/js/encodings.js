/** In which sizes a video is sent, and which of them the relay wants at the moment (LiveKit: dynacast, LIVEKIT §2.8). */

const RIDS = ["q", "h", "f"];
const QUALITIES = ["LOW", "MEDIUM", "HIGH"];
// Targets of libwebrtc's own simulcast table for 320×180, 640×360 and 1280×720, rounded.
const VIDEO_BPS = [150_000, 500_000, 1_700_000];
const SCREEN_BPS = 2_500_000;

/** Return sendEncodings, low to high. A small picture is not worth three of them: nobody would see the lowest. */
export function videoEncodings(source, width, height) {
  if (source === "screenShare") return [{ maxBitrate: SCREEN_BPS }];
  const longer = Math.max(width, height);
  const count = longer >= 960 ? 3 : longer >= 480 ? 2 : 1;
  if (count === 1) return [{ maxBitrate: VIDEO_BPS[0] }];
  const highest = count - 1;
  return RIDS.slice(0, count).map((rid, index) => ({
    rid,
    scaleResolutionDownBy: 2 ** (highest - index),
    maxBitrate: VIDEO_BPS[index],
  }));
}

/** Return the layers of these encodings as they are announced. */
export function layersOf(encodings, width, height) {
  return encodings.map(({ rid = "", scaleResolutionDownBy = 1, maxBitrate }, index) => ({
    quality: encodings.length === 1 ? "HIGH" : QUALITIES[index],
    width: Math.round(width / scaleResolutionDownBy),
    height: Math.round(height / scaleResolutionDownBy),
    bitrate: maxBitrate,
    rid,
  }));
}

/** Return the names of the qualities that an update asks for. We send one codec, so that every codec's list is that one's. */
export function qualitiesOf({ subscribedCodecs = [], subscribedQualities = [] }) {
  const lists = subscribedCodecs.length ? subscribedCodecs.map(({ qualities = [] }) => qualities) : [subscribedQualities];
  // The first name and false are defaults, and so are left out.
  return new Set(lists.flat().filter(({ enabled }) => enabled).map(({ quality = "LOW" }) => quality));
}

/** Encodes one video as it is wanted; encodings nobody wants rest. The newest wish counts, one change at a time. */
export class Demand {
  #sender;
  #wanted = null;
  #turn = Promise.resolve();

  constructor(sender) {
    this.#sender = sender;
  }

  /** Take the names of the qualities that are wanted. */
  want(qualities) {
    this.#wanted = qualities;
    this.#turn = this.#turn.then(() => this.#apply());
    return this.#turn;
  }

  async #apply() {
    const parameters = this.#sender.getParameters();
    const { encodings } = parameters;
    let isOther = false;
    for (const encoding of encodings) {
      // One encoding is all there is, in layers or not: it is sent while anything of it is wanted.
      const isActive = encodings.length > 1 ? this.#wanted.has(QUALITIES[RIDS.indexOf(encoding.rid)]) : this.#wanted.size > 0;
      isOther ||= encoding.active !== isActive;
      encoding.active = isActive;
    }
    if (!isOther) return;
    try {
      await this.#sender.setParameters(parameters);
    } catch {
      // A sender that was stopped meanwhile. What is sent too much of costs nobody the call.
    }
  }
}

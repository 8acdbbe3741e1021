/** Why a frame was not opened. `reason`: malformed, missing (no key by that number), mismatch (another key, or a changed frame). */
export class FrameError extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

/** This browser has no transform of encoded frames, so nothing could be sealed. */
export class CannotEncrypt extends Error {}

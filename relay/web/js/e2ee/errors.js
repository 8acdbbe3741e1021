/** Why a frame was not opened. `reason`: malformed, missing (no key by that number), mismatch (another key, or a changed frame). */
export class FrameError extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

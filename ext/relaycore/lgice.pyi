"""Nothing of this module is visible from Python; `loadgen` is its edge."""

"""Nothing of this module is visible from Python: `markprobe` is its face."""

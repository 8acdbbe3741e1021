"""Nothing of this module is visible from Python: it works on the engine's own tables (see engine.pyi)."""

# Nothing of this module is visible to Python; `worker` is its edge.

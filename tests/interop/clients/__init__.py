"""One driver per kind of client, all behind `base.Client`."""

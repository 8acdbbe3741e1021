"""Pure policy of quality: which encoding and layers of what a subscriber is sent, and why not better ones."""

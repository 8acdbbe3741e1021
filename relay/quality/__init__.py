"""Pure policy of quality: which encoding a subscriber is sent."""

"""Veil: a media relay whose control plane is Python and whose data plane is relaycore."""

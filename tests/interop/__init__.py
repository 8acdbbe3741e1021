"""Clients of others against a running relay: who can call whom, with what result."""

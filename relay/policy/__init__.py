"""Tiers: what the rooms of a customer may do."""

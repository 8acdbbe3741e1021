"""Figures against goals: what `make bench` and the `make bench-*` targets run."""

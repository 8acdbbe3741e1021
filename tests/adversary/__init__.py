"""Whoever wants to bring the relay down: garbage on every port while a call runs, and what the process leaves behind."""

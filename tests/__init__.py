"""Mirrors the source; fakes and real servers beside it."""

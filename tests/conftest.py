"""Fixtures that every folder may use: one Prefect server for the whole session."""

from __future__ import annotations

from tests.prefect_fixture import prefect_server

__all__ = ["prefect_server"]

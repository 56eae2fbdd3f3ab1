from __future__ import annotations

from tests.prefect_fixture import prefect_server

__all__ = ["prefect_server"]

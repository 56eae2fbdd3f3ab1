"""The peer of `burst.*`: a web endpoint that has each message run, as Prefect's documentation has one write it.

Started as a program with a port and a deployment; a message is acknowledged once Prefect has its flow run.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from prefect.deployments import arun_deployment


def make_app(deployment: str) -> FastAPI:
    """`POST /messages` with the flow's parameters; 202 with the id of the flow run."""
    app = FastAPI()

    @app.post("/messages", status_code=202)
    async def accept(parameters: dict[str, Any]) -> dict[str, str]:
        run = await arun_deployment(deployment, parameters=parameters, timeout=0)
        return {"flow_run_id": str(run.id)}

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")

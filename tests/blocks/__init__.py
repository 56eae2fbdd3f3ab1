"""Blocks: what Prefect asks of them, and the connectors that they make."""

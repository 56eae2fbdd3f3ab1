"""Runs: the catalogue of automations, dispatch, the worker, the three levels of failure."""

"""The processes that this is made of: supervisor, hub, listeners; the worker lives with the runs."""

"""A module of automations that does not import."""

raise RuntimeError("this module does not import, on purpose")

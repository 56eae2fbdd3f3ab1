"""The platforms' side, on this machine: one module a platform, each with a `DRIVER` for the contract suite."""

"""The hub as a whole: real store, real link, real Prefect server; the worker is scripted."""

"""The peer of `burst.*`: the flow of one task behind `flow.serve()`, as many at once as we have children."""

from benchmarks.plain_runs import plain_double

if __name__ == "__main__":
    plain_double.serve(name="burst", limit=8, pause_on_shutdown=False)

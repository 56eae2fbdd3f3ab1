"""The peer of `answer.*` and `start.*`: the same flow behind Prefect's own `flow.serve()`. Started as a program."""

from flows.order_status import order_status

if __name__ == "__main__":
    order_status.serve(name="stock", pause_on_shutdown=False)

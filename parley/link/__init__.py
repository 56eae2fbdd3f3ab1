"""The link: how listeners, workers, runs and the command line reach the hub, and the hub reaches them."""

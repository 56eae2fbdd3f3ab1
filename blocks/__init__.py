"""One file a kind of credential: a Prefect Block that can make its connector."""

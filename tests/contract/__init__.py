"""What every plugin of a kind keeps: one suite a kind, run against all of them."""

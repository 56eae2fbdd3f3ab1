"""What parley costs and gives, measured beside what a user would take instead: `make bench`."""

"""Web: the people's port (console, REST), the hooks' port, the metrics' port, and the Python client of the REST API."""

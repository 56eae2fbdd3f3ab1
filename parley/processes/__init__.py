"""The processes that this is made of: supervisor, hub, listeners; the worker lives with the runs."""

import sys

# httpx brings its command line along, and with it rich, pygments and click: 4 MB and a tenth of a second in processes
# that show nothing to anybody. It goes without where that cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # so Python marks what is not to be found

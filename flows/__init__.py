"""One file an automation: a flow whose tasks form its DAG."""

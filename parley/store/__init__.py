"""The store: schema, engine, migrations. Only the hub opens it."""

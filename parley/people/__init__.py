"""People: principals, rights, audit, sealing."""

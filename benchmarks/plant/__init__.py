"""A small plant for fault tests: shipped commands as processes, networks between them, and their books."""

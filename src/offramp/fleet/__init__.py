"""Many devices and many tasks: streams that compiled loops play and count, in place of schedules."""

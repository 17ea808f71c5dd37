"""What experiment trackers are told of a task: one callback a version."""

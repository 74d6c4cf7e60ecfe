"""Linear probes: tasks, folds, solvers, statistics."""

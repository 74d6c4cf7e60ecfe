"""A raw cohort as downloaded -> rows of the index."""

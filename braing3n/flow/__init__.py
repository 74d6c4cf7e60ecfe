"""Interpolants, time schedules, guidance and solvers; one convention: t = 0 data, t = 1 noise."""

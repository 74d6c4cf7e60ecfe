"""Simulated cohorts with known truth, in the cohorts' own layouts."""

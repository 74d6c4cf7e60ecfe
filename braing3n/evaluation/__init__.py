"""Reconstruction, generation, distances, memorization, forecasts."""

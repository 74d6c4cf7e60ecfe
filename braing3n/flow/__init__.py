"""Flow matching in one convention: t = 0 data, t = 1 noise, velocity = noise - data (docs/flow.md)."""

"""convert, n4, mask, register, crop: one module a step, one shard runner for all."""

"""Side-by-side measurements, apart from the tests: `python -m benchmarks.<name>` prints a ratio against a peer."""

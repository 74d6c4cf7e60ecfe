"""Arguments to function calls, nothing else: one module per noun."""

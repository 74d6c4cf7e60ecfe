"""BrainG3N: foundation models of 3D brain MRI, from raw cohorts to embeddings, generation and forecasts."""

__version__ = "0.1.0"

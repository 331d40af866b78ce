"""The shared training module: every method's adapters are trained by the code in this package."""

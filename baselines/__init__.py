"""The fine-tuning methods. One file each: which data, which stages, which loss; `train` does the rest."""

from baselines.method import METHODS, Method, NotApplicable, Recipes, method, methods

__all__ = ["METHODS", "Method", "NotApplicable", "Recipes", "method", "methods"]

"""Base classifiers, one file a family, and the registry of their architectures by name."""

from .classifier import ARCHITECTURES, Classifier, Spec, architecture, build

__all__ = ["ARCHITECTURES", "Classifier", "Spec", "architecture", "build"]

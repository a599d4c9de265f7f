"""Base classifiers, one file per family, and the registry of the families and their architectures."""

from .classifier import Classifier, Spec, build
from .registry import ARCHITECTURES, FAMILIES, architecture, family_of

__all__ = ["ARCHITECTURES", "FAMILIES", "Classifier", "Spec", "architecture", "build", "family_of"]

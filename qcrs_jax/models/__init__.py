"""Base classifiers, one file per family, and the registry of the families and their architectures."""

from .classifier import Classifier, Spec, abstract, build
from .registry import ARCHITECTURES, FAMILIES, architecture, family_of

__all__ = ["ARCHITECTURES", "FAMILIES", "Classifier", "Spec", "abstract", "architecture", "build", "family_of"]

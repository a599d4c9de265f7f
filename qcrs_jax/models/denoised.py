"""A classifier behind a denoiser: denoised smoothing (Salman et al. 2020)."""

import dataclasses
import hashlib

from jax.tree_util import Partial

from ..errors import UserError
from ..sampling.classifiers import NoiseConditional
from .classifier import Classifier, Spec
from .denoiser import Denoiser, DenoiserSpec


class Denoised(Classifier):
    """A classifier that receives denoised images. It knows the noise: `classify` is a `NoiseConditional`.

    A certificate is about denoiser and classifier together, smoothed with the certificate's sigma. It assumes nothing
    about either.

    Args:
        classifier: the classifier, of `load_classifier`.
        denoiser: the denoiser, of `load_denoiser`.

    Attributes:
        spec: that of the classifier. The noise levels in its `source` are those of the denoiser.
        classifier, denoiser: the two.
        classify: `inference()`.

    Raises:
        UserError: the two take images of different shapes, or the classifier knows the noise already.
    """

    def __init__(self, classifier: Classifier, denoiser: Denoiser):
        check_shapes(classifier.spec, denoiser.spec)
        if isinstance(classifier.classify, NoiseConditional):
            raise UserError("the classifier knows the noise already; a denoiser before it would change what it knows")
        self.classifier, self.denoiser = classifier, denoiser
        of_levels = {name: value for name, value in denoiser.spec.source.items() if name in ("sigma", "sigma_range")}
        others = {name: value for name, value in classifier.spec.source.items() if name not in ("sigma", "sigma_range")}
        self.spec = dataclasses.replace(classifier.spec, source=others | of_levels)
        self.classify = self.inference()

    @property
    def model(self):
        """Always an error: it is two networks.

        Raises:
            UserError: always.
        """
        raise UserError("a classifier behind a denoiser is two networks; save or export each of them")

    def inference(self, platform=None, dtype="float32") -> NoiseConditional:
        """A function of images (batch, h, w, c) in [0, 1], and sigma, to logits (batch, num_classes), both float32.

        Jit-compatible; the weights of both networks are leaves of the pytree. Both compute in `dtype`.
        """
        classify = self.classifier.inference(platform, dtype=dtype)
        return NoiseConditional(Partial(_denoise_and_classify, self.denoiser.inference(dtype=dtype), classify))

    def fingerprint(self) -> str:
        """SHA-256 of the fingerprints of both networks."""
        both = repr((self.denoiser.fingerprint(), self.classifier.fingerprint()))
        return hashlib.sha256(both.encode()).hexdigest()


def check_shapes(classifier: Spec, denoiser: DenoiserSpec) -> None:
    """Raises UserError if a classifier and a denoiser take images of different shapes."""
    theirs, ours = tuple(classifier.image_shape), tuple(denoiser.image_shape)
    if theirs != ours:
        raise UserError(
            f"the denoiser is for images of shape {ours}, and the classifier takes {theirs}; take a denoiser that was "
            "trained on images of that shape"
        )


def _denoise_and_classify(denoise, classify, images, sigma):
    return classify(denoise(images, sigma))

"""The paths of the checkout, of the tests, and of optional files outside the checkout."""

from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]
SHARED = ROOT.parent / "shared"

"""Where the tests find the checkout, themselves, and what lies beside it."""

from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]
SHARED = ROOT.parent / "shared"

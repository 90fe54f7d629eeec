"""The repository's folders, and that of development data."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
GOLDEN = ROOT / "tests/golden"
DATA = pathlib.Path(os.environ.get("CHESTX_SHARED", ROOT.parent / "shared")) / "data"

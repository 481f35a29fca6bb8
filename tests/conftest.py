"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

# Two workers of two threads each on two cores wait for one another: small products take 20 ms instead of 20 us.
# Before torch is imported, and for the commands that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that is under test."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and references beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("GENOSSM_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder} (set GENOSSM_SHARED)")
    return folder

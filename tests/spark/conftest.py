"""Whatever starts Java here starts it quickly."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def quick_java(java: None) -> None:
    """Ask for it in the name of every test, since commands start a Java of their own."""

"""Commands as a user that the system does not know, as ``docker run --user 12345`` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: A user of a namespace of its own has what the caller has, and a number without a name.
_NAMELESS = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]


def run_nameless(
    *arguments: object, home: Path | None, temporary: Path
) -> subprocess.CompletedProcess[str]:
    """Run ``verger`` as user 12345, with a ``HOME`` or none; skip where no such user can be."""
    if subprocess.run([*_NAMELESS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine makes no user namespaces")
    kept = {name: os.environ[name] for name in os.environ if name not in ("HOME", "VERGER_HOME")}
    return subprocess.run(
        [*_NAMELESS, sys.executable, "-m", "verger", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=kept | {"TMPDIR": str(temporary)} | ({"HOME": str(home)} if home else {}),
    )

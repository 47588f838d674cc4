"""Scripts of ``tests/web`` that drive a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

WEB = Path(__file__).parents[1] / "web"
RUNTIME = WEB / "node_modules" / "onnxruntime-web" / "dist"


def run_script(name: str, *arguments: str | Path) -> dict[str, Any]:
    """Run a script that drives a browser; return what it saw."""
    command = ["node", WEB / name, shutil.which("chromium") or "chromium", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen

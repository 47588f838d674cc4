"""Look up known vulnerabilities of the pinned packages; part of ``make check``.

Exit 1 where one is known. Where the advisory service cannot be asked the packages are named as not
audited, which fails with ``VERGER_AUDIT=strict`` and is told, loudly, without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def judge(report: dict[str, Any], *, strict: bool) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print for a report of pip-audit's."""
    found = report["dependencies"]
    skipped = [entry["name"] for entry in found if "skip_reason" in entry]
    lines = [
        f"{entry['name']} {entry['version']}: {vuln['id']}, "
        f"mended in {', '.join(vuln['fix_versions']) or 'no version yet'}"
        for entry in found
        for vuln in entry.get("vulns", ())
    ]
    n_audited = len(found) - len(skipped)
    code = 1 if lines else 0
    lines.append(f"{n_audited} of {len(found)} packages audited, {len(lines)} vulnerabilities")
    if skipped:
        names = ", ".join(skipped) if n_audited else "any of them"
        lines.append(f"NOT AUDITED: the advisory service gives no answer about {names}")
        code = code or int(strict)
    return code, lines


def ask(requirements: str, *options: str) -> dict[str, Any]:
    """Run pip-audit on a file of pins and return its report."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        requirements,
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        pins = Path(requirements).read_text("utf-8").splitlines()
        names = [pin.split("==")[0] for pin in pins if "==" in pin]
        print(f"pip-audit could not ask: {last}")
        return {"dependencies": [{"name": name, "skip_reason": last} for name in names]}
    return report


if __name__ == "__main__":
    exit_code, said = judge(
        ask(*sys.argv[1:]), strict=os.environ.get("VERGER_AUDIT", "") == "strict"
    )
    print("\n".join(said))
    sys.exit(exit_code)

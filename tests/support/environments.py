"""Archives that look like an environment to whoever inspects them: a few bytes, no Python."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

MACHINES = {"X86_64": b"\x3e\x00", "ARM64": b"\xb7\x00", "riscv": b"\xf3\x00"}


def elf(machine: str = "X86_64", glibc: str = "2.17") -> bytes:
    """Return the beginning of a binary, and the version that it asks for somewhere inside."""
    asked = f"GLIBC_{glibc}\0GLIBC_2.2.5\0".encode()
    return b"\x7fELF\x02\x01\x01" + bytes(11) + MACHINES[machine] + bytes(50) + asked


def environment(
    folder: Path,
    *,
    python: str = "3.11",
    packages: tuple[str, ...] = ("verger", "numpy"),
    binary: bytes | None = None,
    binaries: tuple[bytes, ...] = (),
    has_python: bool = True,
) -> Path:
    """Write an archive as an environment is laid out."""
    files = {"bin/python": binary if binary is not None else elf()} if has_python else {}
    files |= {f"lib/python{python}/os.py": b"# GLIBC_2.99\0 in a text is none"}
    for name in packages:
        files[f"packages/{name}/__init__.py"] = b""
    for number, content in enumerate(binaries):
        files[f"lib/python{python}/lib-dynload/{number}.so"] = content
    archive = folder / "environment.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return archive

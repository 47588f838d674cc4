"""Archives that look like an environment to whoever inspects them: a few bytes, no Python."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

MACHINES = {"X86_64": b"\x3e\x00", "ARM64": b"\xb7\x00", "riscv": b"\xf3\x00"}
#: Where the dynamic section begins: behind a header and two program headers.
_DYNAMIC = 64 + 2 * 56


def elf(
    machine: str = "X86_64", glibc: str = "2.17", needs: tuple[str, ...] = (), soname: str = ""
) -> bytes:
    """Return a binary of two headers and a dynamic section, and the version that it asks for."""
    names, tags = b"\0", []
    for tag, name in [*((1, name) for name in needs), *([(14, soname)] if soname else [])]:
        tags.append((tag, len(names)))
        names += name.encode() + b"\0"
    tags += [(5, _DYNAMIC + 16 * (len(tags) + 2)), (0, 0)]  # where the names are; the end
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    asked = f"GLIBC_{glibc}\0GLIBC_2.2.5\0".encode()
    size = _DYNAMIC + len(dynamic) + len(names)
    head = b"\x7fELF\x02\x01\x01" + bytes(11) + MACHINES[machine] + bytes(12)
    head += struct.pack("<QQIHHHHHH", 64, 0, 0, 64, 56, 2, 0, 0, 0)
    for kind, start, length in ((1, 0, size), (2, _DYNAMIC, len(dynamic))):
        head += struct.pack("<IIQQQQQQ", kind, 4, start, start, start, length, length, 8)
    return head + dynamic + names + asked


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

"""Folders that systems and cameras make by themselves: thumbnails, bins, snapshots.

They lie among photos, and hold photos again: small ones, and those that were thrown away.
"""

from __future__ import annotations

import re

#: Names in small letters; those that begin with a dot are hidden anyway. No name that people give
#: a class is among them: "thumbs", "recycled" and "trash" are classes of public data sets.
_NAMES = frozenset(
    {
        *("@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot"),  # Synology
        *("@__thumb", "@recycle", "@recently-snapshot", "@transcode"),  # QNAP
        *("$recycle.bin", "recycler", "system volume information"),  # Windows
        *("__macosx", "network trash folder"),  # macOS, and archives that it packs
        *("lost+found", "lost.dir", "~snapshot", "trashbox"),  # Linux, Android, NetApp, Buffalo
        *("thmbnl", "canonmsc"),  # cameras of Sony and Canon
    }
)
_FOUND = re.compile(r"found\.\d{3}", re.IGNORECASE)  # Windows, after it has repaired a disk


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name is made by a system, and not by people; in any case."""
    return name.lower() in _NAMES or _FOUND.fullmatch(name) is not None

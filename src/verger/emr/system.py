"""What the system of EMR's workers has: Amazon Linux 2023, its C library, and other libraries.

The libraries are those of packages in a container image of Amazon Linux 2023 (the list of
docker-library's ``repo-info``, with ``system-release-2023.5.20240708``), by the names that they
have on Fedora, from which the system is made: glibc 2.34, libgcc, libstdc++ and libgomp 11.4,
zlib 1.2.11, bzip2-libs 1.0.8, xz-libs 5.2.5, libzstd 1.5.5, lz4-libs 1.9.4, libffi 3.4.4,
openssl-libs 3.0.8, sqlite-libs 3.40.0, expat 2.5.0, libuuid 2.37.4, libxcrypt 4.4.33, ncurses-libs
6.2, readline 8.1, libxml2 2.10.4. EMR's image is made from it; nobody has looked into that one.
"""

from __future__ import annotations

#: The version of its C library.
GLIBC = (2, 34)
LIBRARIES = frozenset(
    {
        "ld-linux-aarch64.so.1",
        "ld-linux-x86-64.so.2",
        "libbz2.so.1",
        "libc.so.6",
        "libcrypt.so.2",
        "libcrypto.so.3",
        "libdl.so.2",
        "libexpat.so.1",
        "libffi.so.8",
        "libgcc_s.so.1",
        "libgomp.so.1",
        "liblz4.so.1",
        "liblzma.so.5",
        "libm.so.6",
        "libncursesw.so.6",
        "libpanelw.so.6",
        "libpthread.so.0",
        "libreadline.so.8",
        "libresolv.so.2",
        "librt.so.1",
        "libsqlite3.so.0",
        "libssl.so.3",
        "libstdc++.so.6",
        "libtinfo.so.6",
        "libutil.so.1",
        "libuuid.so.1",
        "libxml2.so.2",
        "libz.so.1",
        "libzstd.so.1",
    }
)

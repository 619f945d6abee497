"""The part of the file system that a sandboxed process may read: the interpreter, its packages, the C library."""

import os
import stat
import sys
import sysconfig
from pathlib import Path

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def roots() -> tuple[str, ...]:
    """List the folders and files needed to import any module of the standard library and of torch.

    Only folders that hold nothing but libraries are named, never a prefix as a whole: a virtual environment is often
    kept inside the repository, and an editable installation puts the repository itself on the module path.
    """
    names = [path for key in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(key))]
    names += [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    for prefix in (sys.base_prefix, sys.prefix, "/usr", "/usr/local", "/"):
        names += [str(Path(prefix, folder)) for folder in ("lib", "lib32", "lib64", "libx32")]
    names += ["/usr/share/zoneinfo", "/etc/ld.so.cache"]
    found = sorted({os.path.abspath(name) for name in names if Path(name).exists()})  # noqa: PTH100 - keeps links
    return tuple(path for path in found if not any(Path(other) in Path(path).parents for other in found))


def samples() -> tuple[str, ...]:
    """Name files that must be readable for a late import to work."""
    torch = sys.modules.get("torch")
    files = [os.__file__, torch.__file__ if torch is not None else None]
    return tuple(path for path in files if path)


def open_to_all(paths: tuple[str, ...], parents: bool) -> bool:
    """Tell whether any user can read these paths.

    Args:
        paths: files and folders.
        parents: whether the folders above them count too.
    """
    for path in map(Path, paths):
        real = path.resolve()
        need = stat.S_IROTH | (stat.S_IXOTH if real.is_dir() else 0)
        if real.stat().st_mode & need != need:
            return False
        if parents and not all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents):
            return False
    return True

"""Whether files can be created in a folder of this machine, found out without writing."""

from __future__ import annotations

import errno
import os


def refusal(folder: str) -> str:
    """Return why no file can be created in ``folder``, which need not exist; "" if nothing forbids it.

    Permissions and the mount are examined; what only a write shows, such as a full disk or a quota, is not.
    """
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    try:
        if not os.path.isdir(existing):
            return f"{os.strerror(errno.ENOTDIR)}: {existing}"
        if os.statvfs(existing).f_flag & os.ST_RDONLY:
            return f"{os.strerror(errno.EROFS)}: {existing}; mount it for writing, or name another folder"
        if not os.access(existing, os.W_OK | os.X_OK):
            return f"{os.strerror(errno.EACCES)}: {existing}; change its permissions, or name another folder"
    except OSError as e:  # a mount whose server has died
        return str(e)
    return ""

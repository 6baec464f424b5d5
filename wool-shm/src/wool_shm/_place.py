"""The directory where the processes of one user meet, and the names of the files in it.

A process that announces workers in a namespace has up to three files there, whose names begin
with the same *presence*: a digest of the namespace and a random token.

    PRESENCE.lock      exists first and goes last; locked for as long as the process lives
    PRESENCE.workers   what the process announces, replaced as a whole
    PRESENCE.new       what is about to replace it
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path

from wool.exceptions import ConfigurationError

SHARED_MEMORY = "/dev/shm"
LOCK, WORKERS, NEW = ".lock", ".workers", ".new"
_FILE = re.compile(r"([0-9a-f]{32}-[0-9a-f]{16})\.(?:lock|workers|new)")


def directory(base: Path | None) -> str:
    """Returns the path of this user's directory, which may not exist.

    The number in its name is the version of what is in it: other versions meet elsewhere.
    """
    return os.path.abspath(os.path.join(base or _default(), f"wool-shm-1-{os.geteuid()}"))


def _default() -> str:
    """Returns where the directory is made: a place that nobody else can write to, if there is one.

    That is the runtime directory of the user, which systemd makes under the same name for all
    processes, whether or not they have the variable.
    """
    user = os.geteuid()
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{user}"):
        with contextlib.suppress(OSError):
            found = os.stat(place)
            private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o022
            if private and found.st_uid == user and os.access(place, os.W_OK | os.X_OK):
                return place
    usable = os.path.isdir(SHARED_MEMORY) and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
    return SHARED_MEMORY if usable else tempfile.gettempdir()


def make(path: str) -> None:
    """Makes the directory unless it is there, and makes sure that it is this user's alone.

    Raises:
        ConfigurationError: it cannot be made, or is not what it has to be.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(
            f"the discovery 'shm' cannot make the directory {path}: {error.strerror}. Mend that, "
            "or name another place with the setting `directory`"
        ) from error
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return  # its last user has just left, and whoever opens a file in it comes back here
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is not a directory"
    elif found.st_uid != os.geteuid():
        wrong = f"belongs to another user (uid {found.st_uid})"
    elif stat.S_IMODE(found.st_mode) & 0o077:
        wrong = f"is open to other users (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return
    raise ConfigurationError(
        f"the discovery 'shm' needs {path} for itself, but it {wrong}. Remove it, or name "
        "another place with the setting `directory`"
    )


def digest(namespace: str) -> str:
    """Returns what stands for a namespace in names of files."""
    data = namespace.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def new_presence(namespace: str) -> str:
    """Returns a presence that nobody has had before; `namespace` is a digest."""
    return f"{namespace}-{secrets.token_hex(8)}"


def namespace_of(presence: str) -> str:
    """Returns the digest of the namespace of a presence."""
    return presence.partition("-")[0]


def presences(files: list[str]) -> list[str]:
    """Returns the presences that files belong to, in the order in which they first occur."""
    matches = map(_FILE.fullmatch, files)
    return list(dict.fromkeys(match[1] for match in matches if match))

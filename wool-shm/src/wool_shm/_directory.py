"""The directory where the processes of one user meet."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from wool.exceptions import ConfigurationError

SHARED_MEMORY = "/dev/shm"


def path_of(base: Path | None) -> str:
    """Returns the path of this user's directory, which may not exist.

    The number in its name is the version of what is in it: other versions meet elsewhere.
    """
    return os.path.abspath(os.path.join(base or _default_base(), f"wool-shm-1-{os.geteuid()}"))


def _default_base() -> str:
    """Returns a place that nobody else can write to, or shared memory if there is none.

    The first choice is the user's runtime directory. systemd makes it under the same name for all
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
        return  # its last user has just removed it; opening a file in it fails, and is tried again
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


def leave(path: str) -> None:
    """Removes the directory, unless there is something in it."""
    with contextlib.suppress(OSError):
        os.rmdir(path)

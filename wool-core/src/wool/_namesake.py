"""Says so where another distribution has put files into the folder of this package.

There is a distribution `wool`, which is not this one (`wool-core`) but installs a package of the
same name. Installers do not object: whichever comes last overwrites what both have, and to
uninstall one takes files from the other. Code of ours that is reached then asks here first.
"""

from __future__ import annotations

import sys

OTHER = "wool"
MENDED_BY = "`pip install --force-reinstall --no-deps wool-core`"


def is_ours() -> bool:
    """Whether the package `wool` of this process has the `__init__` of this distribution."""
    return hasattr(sys.modules["wool"], "_HOMES")


def problem() -> str | None:
    """Returns what is wrong with this installation and how it is mended; None if nothing is.

    Asks the metadata of what is installed, which takes milliseconds.
    """
    from importlib.metadata import PackageNotFoundError, distribution
    from pathlib import Path

    try:
        other = distribution(OTHER)
    except PackageNotFoundError:
        if is_ours():
            return None
        return (
            "files of wool-core are missing, or were overwritten by another distribution that "
            f"has a package called wool: {MENDED_BY}"
        )
    if is_ours() and Path(str(other.locate_file("wool"))) != Path(__file__).parent:
        return None  # it is somewhere else, where Python does not find it first
    state = (
        "works only until one of the two is installed anew or uninstalled"
        if is_ours()
        else "cannot work: files of it were overwritten"
    )
    return (
        f"the distribution {OTHER!r} {other.version} is installed, too. It is another project, "
        f"whose package has the same name, so wool-core {state}. To keep wool-core: "
        f"`pip uninstall {OTHER}`, then {MENDED_BY}. To keep both, give each an environment of "
        "its own"
    )


def check() -> None:
    """Complains if the package `wool` is not the one that this module belongs to.

    Raises:
        ImportError: says who else is there, and what to do.
    """
    if not is_ours():
        raise ImportError(problem(), name=OTHER)

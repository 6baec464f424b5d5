"""The `__context__` of an exception that is raised a second time."""

from __future__ import annotations


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Sets it as the interpreter does: the class may refuse, as a frozen dataclass."""
    BaseException.__setattr__(error, "__context__", context)


def settle_context(
    error: BaseException, context: BaseException | None, thrown: BaseException | None = None
) -> None:
    """Restores the `__context__` an exception came with, after raising it replaced it.

    As locally, what the caller was handling meanwhile is at the end of the chain; but not if it is
    what the caller has `thrown` in, which nobody has raised anew.
    """
    handled = error.__context__
    if handled is context:
        return
    if context is None:
        if error is thrown:
            set_context(error, None)
        return
    set_context(error, context)
    seen = {id(error)}
    while id(context) not in seen and context.__context__ is not None:
        seen.add(id(context))
        context = context.__context__
    if handled is not None and id(handled) not in seen and handled is not context:
        set_context(context, handled)

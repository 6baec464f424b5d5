"""Takes an exception apart for pickling, and puts it together again without calling `__init__`.

pickle would call the class with `args`, which fails for most signatures a user can think of, and
loses cause, context and traceback. Here the instance is made by the `__new__` of the built-in
class it derives from, and everything it consisted of is put in place. A class that says itself
how it wants to be pickled is obeyed, and gets cause, context, notes and traceback on top.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from types import (
    BuiltinFunctionType,
    GetSetDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
from typing import Any, cast

from wool._serialization.fields import fields_of, is_slot, set_fields
from wool._serialization.modules import is_built_in
from wool._serialization.tracebacks import Frames, capture, rebuild

Links = tuple[
    BaseException | None,  # one further down, see `_far`
    BaseException | None,  # the cause
    BaseException | None,  # the context
    bool,  # whether the context is suppressed
    Frames | None,
]
Parts = tuple[Any, ...]
"""What a pickler's `reducer_override` returns: function, arguments, state, list items, dictionary
items, and the function that applies the state, which is always `(links, body)` here."""

ARGS, CAUSE, CONTEXT, SUPPRESS, TRACEBACK = (
    cast(GetSetDescriptorType, BaseException.__dict__[name])
    for name in ("args", "__cause__", "__context__", "__suppress_context__", "__traceback__")
)
"""What the interpreter itself uses, whatever a class has under these names."""

STRIDE = 32


def reduce_exception(exc: BaseException, label: str | None = None) -> str | Parts:
    """Reduces an exception, for use in a pickler's `reducer_override`.

    Args:
        label: says in its traceback where it was raised; see `tracebacks.capture`.
    """
    if reduces_itself(type(exc)):
        return reduce_as_written(exc, links_of(exc, label))
    own = {name for name in HOOKS if _is_written(type(exc), name)}
    body = _body(exc, own)
    return *_maker(exc, own), (links_of(exc, label), body), None, None, restore


def links_of(exc: BaseException, label: str | None) -> Links:
    frames = capture(exc.__traceback__, label)
    return _far(exc), exc.__cause__, exc.__context__, exc.__suppress_context__, frames


def _far(exc: BaseException) -> BaseException | None:
    """Returns the exception some way down a long chain; it is pickled before the nearer ones.

    The nearer ones then find their successor done already, so that the depth of the pickler's
    recursion grows with a fraction of the chain's length only.
    """
    link = exc
    for _ in range(STRIDE):
        further = link.__cause__ if link.__context__ is None else link.__context__
        if further is None:
            return None
        link = further
    return link


# Classes that say themselves how to be pickled

HOOKS = ("__getstate__", "__setstate__", "__getnewargs_ex__", "__getnewargs__")
BUILT_IN = (MethodDescriptorType, WrapperDescriptorType, BuiltinFunctionType)


def reduces_itself(cls: type[BaseException]) -> bool:
    """Whether a class has a `__reduce__` of its own that was written with its `__init__` in view.

    One that is inherited from above the latest `__init__` would call it with wrong arguments.
    """
    if _registered(cls) is not None:
        return True
    for base in cls.__mro__:
        names = base.__dict__
        if "__reduce_ex__" in names or "__reduce__" in names:
            return not is_built_in(base)
        if "__init__" in names and not is_built_in(base):
            return False
    return False


def _registered(cls: type) -> Callable[[Any], Any] | None:
    """A reducer registered with `copyreg`, unless tblib put it there for every exception."""
    reducer: Any = copyreg.dispatch_table.get(cls)
    return None if getattr(reducer, "__module__", "").startswith("tblib") else reducer


def _is_written(cls: type, name: str) -> bool:
    attribute = getattr(cls, name, None)
    return attribute is not None and not isinstance(attribute, BUILT_IN)


def reduce_as_written(exc: BaseException, links: Any) -> str | Parts:
    """Asks the class of an exception; what it says is completed by `links` and the notes."""
    registered = _registered(type(exc))
    reduced: Any = registered(exc) if registered else exc.__reduce_ex__(5)
    if isinstance(reduced, str):
        return reduced
    func, args, state, listitems, dictitems, setter = (*reduced, *(None,) * 4)[:6]
    body = (state, setter, exc.__dict__.get("__notes__"))
    return func, args, (links, body), listitems, dictitems, restore_as_written


def restore_as_written(exc: BaseException, state: tuple[Links, tuple[Any, ...]]) -> None:
    """Applies the state of an exception that reduced itself."""
    links, (own, setter, notes) = state
    if setter is not None:
        setter(exc, own)
    elif own is not None:
        cast(Any, exc).__setstate__(own)
    if notes is not None:
        exc.__dict__["__notes__"] = notes
    _link(exc, links)


# All other classes


def _maker(exc: BaseException, own: set[str]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Says how to make a bare instance."""
    hooked: Any = exc
    if "__getnewargs_ex__" in own:
        args, kwargs = hooked.__getnewargs_ex__()
        return make_with, (type(exc), args, kwargs)
    if "__getnewargs__" in own:
        return make_with, (type(exc), hooked.__getnewargs__(), {})
    return make, (type(exc), *members_of(exc))


def members_of(exc: BaseException) -> tuple[()] | tuple[str, tuple[BaseException, ...]]:
    """Returns what `__new__` of a group needs: its fields cannot be set later."""
    if not isinstance(exc, BaseExceptionGroup):
        return ()
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return group.message, group.exceptions


def make(cls: type[BaseException], *args: Any) -> BaseException:
    """Makes an instance, by the `__new__` of the built-in class that it derives from."""
    base: type = cls
    while base.__flags__ & 1 << 9 and base.__base__ is not None:  # Py_TPFLAGS_HEAPTYPE
        base = base.__base__
    return base.__new__(cls, *args)


def make_with(
    cls: type[BaseException], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> BaseException:
    """Makes an instance of a class whose own `__new__` wants to be called."""
    return cls.__new__(cls, *args, **kwargs)


def _body(exc: BaseException, own: set[str]) -> tuple[Any, ...]:
    """What an instance holds: `(args, fields, attributes, what the class itself says)`."""
    args = ARGS.__get__(exc)
    fields = fields_of(exc)
    attributes = dict(exc.__dict__) or None
    if not own & {"__getstate__", "__setstate__"}:
        return args, fields, attributes, None
    notes = exc.__dict__.get("__notes__")
    said = cast(Any, exc).__getstate__() if "__getstate__" in own else attributes
    kept = {name: value for name, value in fields.items() if not is_slot(type(exc), name)}
    return args, kept, None if notes is None else {"__notes__": notes}, said


def restore(exc: BaseException, state: tuple[Links, tuple[Any, ...]]) -> None:
    """Puts everything in place, past `__setattr__` and properties of the class."""
    links, (args, fields, attributes, said) = state
    ARGS.__set__(exc, args)
    if fields:
        set_fields(exc, fields)
    if attributes:
        exc.__dict__.update(attributes)
    if said is not None:
        _set_said(exc, said)
    _link(exc, links)


def _set_said(exc: BaseException, said: Any) -> None:
    """Applies the result of `__getstate__` as `copy` and `pickle` do."""
    if _is_written(type(exc), "__setstate__"):
        cast(Any, exc).__setstate__(said)
        return
    attributes, slots = cast("tuple[Any, Any]", said) if type(said) is tuple else (said, None)
    exc.__dict__.update(attributes or {})
    for name, value in cast("dict[str, Any]", slots or {}).items():
        object.__setattr__(exc, name, value)


def _link(exc: BaseException, links: Links) -> None:
    _, cause, context, suppress, frames = links
    CAUSE.__set__(exc, cause)  # which also suppresses the context
    SUPPRESS.__set__(exc, suppress)
    CONTEXT.__set__(exc, context)
    TRACEBACK.__set__(exc, rebuild(frames))

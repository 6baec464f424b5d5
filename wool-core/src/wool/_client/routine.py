"""The decorator: turns an async function or async generator into a routine.

The result is a real function with the signature of the original, generated from it, so Python
itself raises `TypeError` for wrong arguments at the call, `inspect` sees what it is, and calling it
makes a real coroutine or async generator. Its body asks for the pool when it is first awaited.
All of it has the line of the original's definition: that is what a traceback shows.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from operator import attrgetter
from types import FrameType, FunctionType
from typing import Any, ParamSpec, TypeVar, cast, overload

from wool._client.current import choose_elsewhere, choose_pool
from wool._peer.chaining import settle_context

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Any])

_CALL = """
async def routine(PARAMETERS):
    __pool__ = __choose__()
    if __pool__ is None:
        return await __function__(ARGUMENTS)
    __value__, __error__ = await __pool__.call(__routine__, POSITIONAL, KEYWORDS)
    if __error__ is None:
        return __value__
    __context__ = __error__.__context__
    try:
        raise __error__
    finally:
        __settle__(__error__, __context__)
        del __error__, __context__
"""

_STREAM = """
async def routine(PARAMETERS):
    __steps__ = __stream__(__routine__, POSITIONAL, KEYWORDS)
    __input__ = None
    __thrown__ = False
    try:
        while await __steps__.step(__input__, __thrown__):
            try:
                __input__ = yield __steps__.take()
                __thrown__ = False
            except BaseException as __exception__:
                if __steps__.given_up(__exception__):
                    raise
                __input__ = __exception__
                __thrown__ = True
    except GeneratorExit:
        if __steps__.error is None:
            raise
    __error__ = __steps__.error
    if __error__ is None:
        return
    __context__ = __error__.__context__
    try:
        raise __error__
    finally:
        __steps__.settle(__error__, __context__)
        del __error__, __context__, __input__, __steps__
"""

_MADE = ("__wool__", "__wrapped__")
_COPIED = (
    "__annotations__",
    "__defaults__",
    "__doc__",
    "__kwdefaults__",
    "__module__",
    "__qualname__",
    "__type_params__",
)


class Routine:
    """A routine as Wool knows it.

    Attributes:
        function: the original.
        is_stream: whether it is an async generator.
        tags: labels a worker must have.
        prefetch: values a worker may produce ahead of a stream's consumer.
        local: whether it runs locally where no pool is open.
        choose: returns the pool that a call uses, None for none.
    """

    def __init__(
        self, function: FunctionType, tags: frozenset[str], prefetch: int, local: bool
    ) -> None:
        self.function = function
        self.is_stream: bool = inspect.isasyncgenfunction(function)
        self.tags = tags
        self.prefetch = prefetch
        self.local = local
        self.choose: Callable[[], Any] = choose_pool if local else choose_elsewhere
        self.wrapper: FunctionType = function
        self.target: str | None = None
        """Where workers import it from, once that is known; see `requests`."""
        self._handed_over: dict[int, tuple[weakref.ref[Any], str]] = {}  # calls, by their frames

    def hand_over(self, call: Any, frame: FrameType, taker: str) -> None:
        """A call that has not begun travels, and begins where it is consumed.

        Args:
            taker: says where it went.
        """
        key = id(frame)
        gone = weakref.ref(call, lambda _: self._handed_over.pop(key, None))
        self._handed_over[key] = gone, taker
        # From now on all calls of this routine ask before they begin; those of others never do.
        scope = frame.f_globals
        if self.is_stream:
            scope["__stream__"] = _open_unless_lent
        else:
            scope["__choose__"] = _choose_unless_lent

    def take_back(self, frame: FrameType) -> None:
        """A call that was handed over can be used here again."""
        self._handed_over.pop(id(frame), None)

    def taker(self, frame: FrameType) -> str | None:
        """Says where a call went that was handed over; None if it was not."""
        call, taker = self._handed_over.get(id(frame), (None, None))
        # One that has ended has no frame any more, and another call may have one in its place.
        return taker if call is not None and _frame_of(call()) is frame else None

    def arguments(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments of a call whose parameters have these values."""
        positional, rest, keyword, others = parameters(self.function)
        args = (*(values[name] for name in positional), *(values[rest] if rest else ()))
        kwargs: dict[str, Any] = {name: values[name] for name in keyword}
        if others:
            kwargs.update(values[others])
        return without_defaults(self.function, args, kwargs)

    def reduce(self) -> tuple[Any, ...]:
        """Reduces the wrapper for pickling by value: it is generated anew.

        The attributes that it copies go along: the wrapper of a function that calls itself is
        generated before the function has any of them.
        """
        wrapper = self.wrapper
        attributes = {n: v for n, v in vars(wrapper).items() if n not in _MADE}
        copied = {name: getattr(wrapper, name) for name in _COPIED if hasattr(wrapper, name)}
        made = self.function, self.tags, self.prefetch, self.local
        return make_wrapper, made, (attributes, copied)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as that of its wrapper, when met in what `functools.wraps` copied from that."""
        return attrgetter("__wool__"), (self.wrapper,)


@overload
def routine(
    function: Callable[P, Coroutine[Any, Any, T]], /
) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def routine(
    function: Callable[P, AsyncGenerator[T, S]], /
) -> Callable[P, AsyncGenerator[T, S]]: ...
@overload
def routine(function: F, /) -> F: ...
@overload
def routine(
    *, tags: Iterable[str] = (), prefetch: int = 0, local: bool = True
) -> Callable[[F], F]: ...


def routine(
    function: Callable[..., Any] | None = None,
    /,
    *,
    tags: Iterable[str] = (),
    prefetch: int = 0,
    local: bool = True,
) -> Any:
    """Makes an async function or async generator run on the workers of a pool.

    The result is used like the original. Where no pool is open it runs locally. Nothing is sent
    before it is awaited or iterated.

    Args:
        function: an `async def` function or async generator function, or a static or class
            method of one.
        tags: labels that a worker must have to run it.
        prefetch: for async generators: how many values a worker may produce ahead of the
            consumer; 0 is one step for each `anext`, as locally.
        local: whether it runs in this process where no pool is open; if not, a call raises
            `NoWorkersAvailable` there. The setting `run_locally` says it for all routines.

    Raises:
        TypeError: `function` is neither, or the tags are not several strings.
        ValueError: `prefetch` is negative.
    """
    if isinstance(tags, str):
        raise TypeError(f"tags must be several labels, not the string {tags!r}")
    if type(prefetch) is not int:
        raise TypeError(f"prefetch must be a whole number, not {prefetch!r}")
    if prefetch < 0:
        raise ValueError(f"prefetch must not be negative: {prefetch}")
    labels: frozenset[Any] = frozenset(tags)
    if not all(isinstance(label, str) for label in labels):
        raise TypeError(f"tags must be strings, not {tags!r}")
    if function is None:
        return functools.partial(_decorate, tags=labels, prefetch=prefetch, local=local)
    return _decorate(function, labels, prefetch, local)


def _decorate(function: Any, tags: frozenset[str], prefetch: int, local: bool) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        method = cast("staticmethod[Any, Any]", function)
        return type(method)(_decorate(method.__func__, tags, prefetch, local))
    if isinstance(function, functools.partial):
        partial = cast("functools.partial[Any]", function)
        made = _decorate(partial.func, tags, prefetch, local)
        return functools.partial(made, *partial.args, **partial.keywords)
    if not isinstance(function, FunctionType) or not (
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    ):
        raise TypeError(_not_async(function))
    return make_wrapper(function, tags, prefetch, local)


def _not_async(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or repr(function)
    if inspect.isgeneratorfunction(function):
        remedy = "write `async def` to make it an async generator"
    elif _is_made_of_async(function):
        remedy = "put @wool.routine directly above its `async def`, below other decorators"
    elif callable(function) and not inspect.isclass(function):
        remedy = (
            "write `async def`, and call blocking code inside with `await asyncio.to_thread(…)`"
        )
    else:
        remedy = "decorate an `async def` function; call other things inside it"
    return (
        f"@wool.routine takes an async function or an async generator function, and {name} is "
        f"neither: {remedy}"
    )


def _is_made_of_async(function: Any) -> bool:
    """Whether it is what another decorator, or an instance, has made of an async function."""
    try:
        inner: Any = inspect.unwrap(function)
    except ValueError:  # it wraps itself
        return False
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


def make_wrapper(
    function: FunctionType, tags: frozenset[str], prefetch: int, local: bool
) -> FunctionType:
    """Generates the wrapper of a function; pickles name it, for a function that has travelled."""
    routine = Routine(function, tags, prefetch, local)
    code = _compile(function, _STREAM if routine.is_stream else _CALL)
    scope: dict[str, Any] = {
        "__name__": function.__module__,
        "__builtins__": __builtins__,
        "__choose__": routine.choose,
        "__function__": function,
        "__routine__": routine,
        "__settle__": settle_context,
        "__stream__": open_stream,
    }
    exec(code, scope)
    wrapper: Any = scope.pop(function.__name__)
    wrapper.__defaults__ = function.__defaults__
    wrapper.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(wrapper, function)
    wrapper.__wool__ = routine
    routine.wrapper = wrapper
    return wrapper


def open_stream(routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Prepares the steps of a stream, here or on a worker."""
    pool = routine.choose()
    if pool is None:
        from wool._client.local_stream import LocalStream

        return LocalStream(routine.function(*args, **kwargs))
    return pool.stream(routine, args, kwargs)


def _frame_of(call: Any) -> FrameType | None:
    return getattr(call, "cr_frame", None) or getattr(call, "ag_frame", None)


def _choose_unless_lent() -> Any:
    """Stands in for `choose_pool` in the body of a call."""
    frame = sys._getframe(1)
    routine: Routine = frame.f_globals["__routine__"]
    if routine.taker(frame) is not None:
        raise RuntimeError("cannot reuse already awaited coroutine")
    return routine.choose()


def _open_unless_lent(routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stands in for `open_stream` in the body of a stream."""
    taker = routine.taker(sys._getframe(1))
    if taker is not None:
        raise RuntimeError(
            f"the stream {routine.function.__qualname__}() was passed to {taker}, and is consumed "
            "there: make another one to consume here"
        )
    return open_stream(routine, args, kwargs)


def _compile(function: FunctionType, template: str) -> Any:
    """Compiles a template for the signature of a function, all of it on its first line."""
    parameters, positional, keywords = _signature(function)
    arguments = ", ".join([f"*{positional}"] * bool(positional) + [f"**{keywords}"])
    parts = {
        "PARAMETERS": parameters,
        "ARGUMENTS": arguments,
        "POSITIONAL": positional,
        "KEYWORDS": keywords,
    }
    source = re.sub("|".join(parts), lambda found: parts[found[0]], template)
    tree = ast.parse(source)
    cast(ast.AsyncFunctionDef, tree.body[0]).name = function.__name__
    line = function.__code__.co_firstlineno
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            here = cast(ast.expr, node)
            here.lineno = here.end_lineno = line
            here.col_offset, here.end_col_offset = 0, 1000  # all of it: nothing to underline
    return compile(tree, function.__code__.co_filename, "exec")


def parameters(function: FunctionType) -> tuple[list[str], str | None, list[str], str | None]:
    """Returns the names of the positional parameters, `*rest`, the others and `**others`."""
    code = function.__code__
    names = iter(code.co_varnames)
    positional = [next(names) for _ in range(code.co_argcount)]
    keyword = [next(names) for _ in range(code.co_kwonlyargcount)]
    rest = next(names) if code.co_flags & inspect.CO_VARARGS else None
    others = next(names) if code.co_flags & inspect.CO_VARKEYWORDS else None
    return positional, rest, keyword, others


def without_defaults(
    function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Leaves out arguments that are the parameter's own default: the worker has that as well.

    So a sentinel is still the sentinel there, and a default need not be sent.
    """
    # There may be more of them than parameters: some decorators copy those of what they wrap.
    code, defaults = function.__code__, function.__defaults__
    if defaults and len(args) <= code.co_argcount:
        last = len(args)
        for value, default in zip(reversed(args), reversed(defaults), strict=False):
            if value is not default:
                break
            last -= 1
        args = args[:last]
    if function.__kwdefaults__:
        own = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        keywords = {n: v for n, v in function.__kwdefaults__.items() if n in own}
        kwargs = {n: v for n, v in kwargs.items() if n not in keywords or v is not keywords[n]}
    return args, kwargs


def _signature(function: FunctionType) -> tuple[str, str, str]:
    """Returns source text: parameters, a tuple of the positional and a dict of the others."""
    code = function.__code__
    positional, rest, keyword, others = parameters(function)
    required = len(positional) - len(function.__defaults__ or ())
    listed = [n if i < required else f"{n}=None" for i, n in enumerate(positional)]
    if code.co_posonlyargcount:
        listed.insert(code.co_posonlyargcount, "/")
    if rest or keyword:
        listed.append(f"*{rest or ''}")
    defaults = function.__kwdefaults__ or {}
    listed += [f"{n}=None" if n in defaults else n for n in keyword]
    if others:
        listed.append(f"**{others}")

    tuple_items = [f"{n}," for n in positional] + ([f"*{rest},"] if rest else [])
    dict_items = [f"{n!r}: {n}" for n in keyword] + ([f"**{others}"] if others else [])
    return ", ".join(listed), f"({' '.join(tuple_items)})", f"{{{', '.join(dict_items)}}}"

"""WSGI: threads, and a pool on an event loop in the background, which is reached by a portal."""

import socketserver
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any
from urllib.request import urlopen
from wsgiref.simple_server import WSGIServer, make_server

from anyio.from_thread import BlockingPortal, start_blocking_portal

import wool


@wool.routine
async def square(n: int) -> int:
    return n * n


@wool.routine
async def lines(count: int) -> AsyncGenerator[bytes]:
    for number in range(count):
        yield b"line %d\n" % number


Start = Callable[..., Any]


class Application:
    """Answers requests in whatever thread they come: `/square/7`, `/lines/3`."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.portal = portal

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answers one request."""
        _, what, number = environ["PATH_INFO"].split("/")
        start_response("200 OK", [("Content-Type", "text/plain")])
        if what == "lines":
            return self.iterate(lines(int(number)))
        return [str(self.portal.call(square, int(number))).encode()]

    def iterate(self, stream: AsyncGenerator[bytes]) -> Iterable[bytes]:
        """Turns a stream into an ordinary iterator."""

        async def step() -> bytes | None:
            return await anext(stream, None)

        try:
            while (line := self.portal.call(step)) is not None:
                yield line
        finally:  # also if the client hangs up
            self.portal.call(stream.aclose)


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """Has a thread for each request."""


def main() -> None:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(wool.WorkerPool(size=2)),
        make_server("127.0.0.1", 0, Application(portal), Server) as server,
    ):
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        for path in ("square/7", "lines/3"):
            with urlopen(f"http://127.0.0.1:{server.server_port}/{path}") as answer:
                print(answer.read().decode().split("\n"))
        server.shutdown()
        serving.join()


main()

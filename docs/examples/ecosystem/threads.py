"""WSGI: threads without an event loop, and one pool for all of them."""

import socketserver
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any
from urllib.request import urlopen
from wsgiref.simple_server import WSGIServer, make_server

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

    def __init__(self, pool: wool.SyncPool) -> None:
        self.pool = pool

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answers one request."""
        _, what, number = environ["PATH_INFO"].split("/")
        start_response("200 OK", [("Content-Type", "text/plain")])
        if what == "lines":
            return self.pool.stream(lines, int(number))  # is closed if the client hangs up
        return [str(self.pool.call(square, int(number))).encode()]


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """Has a thread for each request."""


def main() -> None:
    with (
        wool.SyncPool(size=2) as pool,
        make_server("127.0.0.1", 0, Application(pool), Server) as server,
    ):
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        for path in ("square/7", "lines/3"):
            with urlopen(f"http://127.0.0.1:{server.server_port}/{path}") as answer:
                print(answer.read().decode().split("\n"))
        server.shutdown()
        serving.join()


main()

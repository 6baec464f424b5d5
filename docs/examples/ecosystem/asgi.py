"""ASGI applications that have no lifespan of their own, such as Django's: a pool around them.

In Django's `asgi.py`: `application = WithPool(get_asgi_application(), size=2)`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import wool

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class WithPool:
    """Opens a pool as the server starts, and leaves it when the server stops."""

    def __init__(
        self, app: Callable[[Message, Receive, Send], Awaitable[None]], **options: Any
    ) -> None:
        self.app = app
        self.options = options

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Passes everything on but the lifespan of the server."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        phase = (await receive())["type"]
        try:
            async with wool.WorkerPool(**self.options):
                await send({"type": f"{phase}.complete"})
                phase = (await receive())["type"]
        except Exception as error:  # else servers would go on without a pool
            await send({"type": f"{phase}.failed", "message": str(error)})
        else:
            await send({"type": f"{phase}.complete"})

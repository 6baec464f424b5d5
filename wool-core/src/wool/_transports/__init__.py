"""Built-in transports, and the private base of those that use a stream.

`stream` carries messages over any stream of the event loop's, `listener` accepts connections, and
`sockets` makes sockets and knows their peers. The transports `unix` and, in its own package, `ws`
are built on these three. Others are not: only `wool.abc` is promised.
"""

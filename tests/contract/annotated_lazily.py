"""Only Python 3.14 and later can import this: it names what type checkers alone know."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

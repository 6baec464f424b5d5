"""The checks of `wool doctor`. Each module is one subject, and yields what it has found."""

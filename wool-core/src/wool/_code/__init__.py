"""Functions, classes and modules on their way to other processes."""

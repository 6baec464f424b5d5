"""A module that the script imports relatively."""

FACTOR = 5


class Failure(Exception):
    pass


def scaled(x):
    return x * FACTOR

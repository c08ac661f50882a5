"""Marks of integration tests, read by run.py."""


def slow(function):
    """Left out of quick runs (sanitizer builds)."""
    function.slow = True
    return function


def variants(*sets):
    """Run once with each set of keyword arguments."""
    def mark(function):
        function.variants = list(sets)
        return function
    return mark


# One and four reactors, both engines.
ENGINES = ({"reactors": 1, "engine": "io_uring"}, {"reactors": 4, "engine": "io_uring"},
           {"reactors": 1, "engine": "threads"}, {"reactors": 4, "engine": "threads"})
every_engine = variants(*ENGINES)

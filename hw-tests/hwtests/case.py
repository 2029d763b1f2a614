"""What a case is: a function that gives figures, with what it needs of a target and of the cases before it."""

import dataclasses
from collections.abc import Callable


class Skip(Exception):
    """The case does not apply here; why."""


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    feature: str
    about: str
    function: Callable
    needs: tuple[str, ...]
    after: tuple[str, ...]


CASES: dict[str, Case] = {}


def case(*, needs: tuple[str, ...] = (), after: tuple[str, ...] = ()):
    """Makes a case of a function of a bench. It is skipped where the target lacks one of `needs`, and when one of the
    cases that it builds on, `after`, was asked for and did not run through."""

    def kept(function):
        CASES[function.__name__] = Case(function.__name__, function.__module__.rsplit(".", 1)[-1],
                                        " ".join(function.__doc__.split()), function, needs, after)
        return function

    return kept


def check(is_so: bool, text: str):
    if not is_so:
        raise AssertionError(text)

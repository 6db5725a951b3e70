"""The one error that a user's input can cause."""

from __future__ import annotations


class OfframpError(ValueError):
    """Input that cannot be used: which field, its value, what is allowed and what to do.

    The command line prints it as one line and exits with status 2.
    """

    def __init__(self, field: str, value: object, allowed: str, remedy: str = "") -> None:
        self.field, self.value, self.allowed, self.remedy = field, value, allowed, remedy
        shown = repr(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        text = f"{field} = {shown}: {allowed}"
        super().__init__(f"{text}; {remedy}" if remedy else text)

    def __reduce__(self) -> tuple[type[OfframpError], tuple[str, object, str, str]]:
        return type(self), (self.field, self.value, self.allowed, self.remedy)


class MissingExtraError(OfframpError):
    """A command needs an optional part of Offramp that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, "not installed", "this command needs it", f"pip install 'offramp[{extra}]'")

    def __reduce__(self) -> tuple[type[OfframpError], tuple[str, object, str, str]]:
        return OfframpError, (self.field, self.value, self.allowed, self.remedy)

"""Numbers and names as people write them."""


def counted(number: int, noun: str) -> str:
    """ "1 style", "2 styles"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shortest(value: float) -> str:
    """The shortest text that is this very number; 2 and not 2.0."""
    return repr(float(value)).removesuffix(".0")


def quoted(value: object) -> str:
    """What somebody wrote, as Python writes it, and no more than a line's worth of it: it may be of any length."""
    shown = repr(value)
    return shown if len(shown) <= 100 else shown[:99] + "…"

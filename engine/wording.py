"""Numbers and names as people write them."""


def counted(number: int, noun: str) -> str:
    """ "1 style", "2 styles"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shortest(value: float) -> str:
    """The shortest text that is this very number; 2 and not 2.0."""
    return repr(float(value)).removesuffix(".0")

"""What the engine raises and warns of, for whoever catches it; every message is one line."""


class SettingsError(ValueError):
    """A setting that cannot be honoured; the message is one line: which, why, and what is allowed."""


class LayersMissing(UserWarning):
    """Some of the classic layers are not in the weights, and others are used instead."""


class ImageError(ValueError):
    """A picture that can't be read or written; the message is one line: what, which, and what to do."""


class NonFiniteCostError(ArithmeticError):
    """The cost became infinite or NaN; the message is one line: at which iteration, the likely cause, what to do."""

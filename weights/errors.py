"""What reading and fetching weights raises; every message is one line."""


class WeightsError(ValueError):
    """The weights cannot be used; the message is one line: what is wrong, in which file, and what to do."""


class DownloadError(OSError):
    """The file could not be downloaded; the message is one line: why, and how to get the file by hand."""

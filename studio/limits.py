"""What the studio takes at most, of whatever a client can send; all in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Every number that bounds what clients can make the server hold, write or wait for."""

    upload_bytes: int = 64 << 20
    """Of one picture."""
    request_bytes: int = 256 << 20
    """Of all that one request uploads."""
    text_bytes: int = 64 << 10
    """Of a request's JSON, and of each text in an upload."""
    pixels: int = 64_000_000
    """Of a picture that is uploaded, and of one that is painted."""
    styles: int = 8
    queue: int = 64
    """Runs that wait or are painted."""
    name_characters: int = 200
    free_bytes: int = 512 << 20
    """What an upload must leave free on the disk."""
    uploads: int = 8
    """Requests with pictures at one time."""
    decoders: int = 2
    """Processes that decode at one time."""
    decode_memory: int = 4 << 30
    """Address space of a process that decodes."""
    decode_seconds: int = 60
    """Processor time, and twice that by the clock, for the pictures of one request."""
    frames: int = 200
    """Kept of a run; each second one goes when there would be more."""
    frame_bytes: int = 16 << 20
    points: int = 500
    """Of a run's costs, thinned likewise."""
    changes: int = 1000
    """Kept of what was changed while a run was painted."""
    line_bytes: int = 4 << 20
    """Of what a child says in one line."""
    log_bytes: int = 1 << 20
    """Of what a child says beside its lines."""
    connections: int = 256
    watchers: int = 100
    """Live connections."""
    pending_lines: int = 256
    """For one live connection; one that falls behind is told to look anew."""
    header_seconds: float = 10.0
    """Within which a client has sent the head of a request."""
    silence_seconds: float = 15.0
    """After which an upload that has stopped is given up, and a reader who takes nothing."""
    bytes_per_second: int = 4096
    """An upload that is slower is given up."""
    orphan_seconds: float = 20.0
    """What the child of a dead server is given to end by itself."""
    ending_seconds: float = 10.0
    """What a child is given to write its checkpoint and end."""

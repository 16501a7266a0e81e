"""Whether a checkpoint was written by this user: it is sealed with a key that lies in the user's own folder.

A checkpoint says where a run writes. One's own may; one that somebody has sent must not.
"""

import contextlib
import hmac
import os
import secrets

BYTES = 32


def sealed(text: str) -> str:
    """The seal (hex) of a text of this user's; "" where no key can be kept."""
    key = _key(make=True)
    return "" if key is None else hmac.new(key, text.encode(errors="surrogatepass"), "sha256").hexdigest()


def is_ours(text: str, seal: str) -> bool:
    """Whether `sealed` gave this seal for this text, as this user."""
    key = _key(make=False)
    if key is None or not seal.isascii():
        return False
    return hmac.compare_digest(hmac.new(key, text.encode(errors="surrogatepass"), "sha256").hexdigest(), seal)


def _key(*, make: bool) -> bytes | None:
    """The user's key, which nobody else may read or have put there; None where there is none."""
    import platformdirs

    path = platformdirs.user_data_path("nstgpu", appauthor=False) / "checkpoint.key"
    if make and not path.exists():
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{secrets.token_hex(8)}.part")
            try:
                with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(secrets.token_bytes(BYTES))
                os.link(beside, path)  # another process's stays, if that was first
            finally:
                beside.unlink(missing_ok=True)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
                return None
            key = file.read(BYTES + 1)
    except OSError:
        return None
    return key if len(key) == BYTES else None

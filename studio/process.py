"""What child processes are started with: this interpreter, and the modules that it finds."""

import os
import sys
from typing import Any


def environment() -> dict[str, str]:
    """This process's, with the same places for modules, wherever the child is started."""
    places = [path or os.getcwd() for path in sys.path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1"}


def apart() -> dict[str, Any]:
    """Arguments of a subprocess that Ctrl-C in this one's terminal does not reach."""
    if os.name == "nt":
        return {"creationflags": 0x00000200}  # CREATE_NEW_PROCESS_GROUP
    return {"start_new_session": True}


PYTHON = sys.executable

"""A server on loopback whose runs `fake_child.py` paints: fake_server.py FOLDER [LIMITS as JSON]; says its port."""

import json
import sys
from pathlib import Path

from harness.studio import fake_program
from nstgpu.studio.jobs.shelf import Shelf
from nstgpu.studio.limits import Limits
from nstgpu.studio.web.session import Session, listen

limits = Limits(**json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))
listening = listen("127.0.0.1", 0)
session = Session(
    Shelf(Path(sys.argv[1])), fake_program(), limits, ("auto",), "127.0.0.1", listening, wants_token=False, say=print
)
print(listening.getsockname()[1], flush=True)
session.run()

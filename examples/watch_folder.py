"""Paints whatever is put into a folder: python examples/watch_folder.py FOLDER style.jpg OUTPUT_FOLDER [ROUNDS]

Looks every two seconds, for ever or so many times. What is painted already is told by its recipe, so that it can be
stopped and started again.
"""

import sys
import time

import nstgpu

folder, style, output, *rest = sys.argv[1:]
rounds = int(rest[0]) if rest else sys.maxsize
for number in range(rounds):
    try:
        batch = nstgpu.Batch([folder], [style], output, name="{content}.png", size=384)
        batch.run(on_outcome=lambda outcome: print(outcome.task.output, outcome.state, outcome.reason))
    except nstgpu.SettingsError as error:  # nothing is there yet, or two have one name
        print(error)
    if number + 1 < rounds:
        time.sleep(2)

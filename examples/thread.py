"""A run in a thread, watched and stopped from outside: python examples/thread.py content.jpg style.jpg

Nothing is global: several such runs may go on at once, each with its own StyleTransfer.
"""

import sys
import threading

import nstgpu

content, style = sys.argv[1:]
latest: list[nstgpu.Progress] = []
stop = threading.Event()


def watch(progress: nstgpu.Progress) -> bool:
    latest[:] = [progress]
    return not stop.is_set()


def paint() -> None:
    transfer = nstgpu.StyleTransfer(content, style, weights=nstgpu.load_weights("mini"), size=256)
    transfer.run(iterations=100, on_iteration=watch).save("threaded.png")


thread = threading.Thread(target=paint)
thread.start()
while thread.is_alive():
    thread.join(timeout=1)
    if latest:
        progress = latest[0]
        print(f"{progress.iteration} of {progress.iterations}, about {progress.remaining:.0f} s left")
print("wrote threaded.png")

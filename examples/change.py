"""Changes its mind half way: python examples/change.py content.jpg style.jpg

A run is never changed within an iteration. It is stopped, and its state goes on as that of a run with other weights:
what the optimizer remembers is kept. On a GPU iterations may be under way when a callback says stop; it is told of
those too, so the last state is the one to take.
"""

import sys

import nstgpu

content, style = sys.argv[1:]
transfer = nstgpu.StyleTransfer(content, style, weights="mini", size=256)
method = transfer.method(iterations=40)
states: list[nstgpu.RunState] = []


def until_half_way(progress: nstgpu.Progress) -> bool:
    if progress.iteration < progress.iterations // 2:
        return True
    states.append(progress.state())
    return False


transfer.follow(method, on_iteration=until_half_way)
bolder = transfer.reweighted(style_weight=10 * transfer.style_weight)
result = bolder.follow(method, resume=states[-1].changed_to(bolder, method))
result.save("bolder.png")
print(f"wrote bolder.png; the style counts tenfold after {states[-1]!r}")

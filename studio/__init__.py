"""The studio: `nstgpu serve`, runs that are watched and changed in a browser.

The server never paints. `jobs` has the runs, each a folder and, while it is painted, a child process; `pictures`
decodes what others upload, in a process of its own; `web` is what a browser talks to, and `page` what it shows.
"""

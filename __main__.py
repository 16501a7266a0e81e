"""`python -m nstgpu` is the command `nstgpu`."""

from .cli import main

if __name__ == "__main__":
    main()

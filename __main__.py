"""`python -m nstgpu` is the command `nstgpu`."""


def main() -> None:
    """The console script; Ctrl-C while the command line is still being loaded ends it without a traceback."""
    try:
        from .cli import main as command
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command()


if __name__ == "__main__":
    main()

"""Which modules of this folder go into the wheel: all but how `mini` was made, and this one. For setuptools alone."""

from setuptools.command.build_py import build_py

LEFT_OUT = {("nstgpu.weights", "distill"), ("nstgpu.weights", "wheel")}


class BuildPy(build_py):
    """Copies the package's modules."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return [module for module in found if module[:2] not in LEFT_OUT]

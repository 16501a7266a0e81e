"""`nstgpu doctor`: what this machine offers, what would be chosen, and the one command that mends what is missing."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .options import Debug


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Show GPU, driver, CUDA, CuPy, NVRTC, BLAS and caches, and what `--device auto` chooses here."""
    del debug  # acted on where errors are reported
    from ..kernels.diagnose import choice, diagnose
    from ..weights import default_weights, weights_folder

    findings = diagnose()
    device, reason = choice()
    weights = default_weights()
    to_mend = [(finding.problem, finding.remedy) for finding in findings if finding.problem]
    remedy = to_mend[0][1] if to_mend else ""
    if as_json:
        facts = {finding.name: asdict(finding) for finding in findings}
        mend = [{"problem": problem, "remedy": command} for problem, command in to_mend]
        report = {"auto": device, "why": reason, "remedy": remedy, "to_mend": mend, "weights": weights}
        print(json.dumps({**report, "findings": facts}, indent=2))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.name, Text(finding.found))
    source = "bundled; nstgpu weights fetch vgg19 gets the whole" if weights == "mini" else f"in {weights_folder()}"
    table.add_row("weights", Text(f"{weights} ({source}) unless --weights names others"))
    table.add_row("auto", Text(f"{device}: {reason}"))
    for number, (problem, command) in enumerate(to_mend or [("nothing", "")]):
        table.add_row("" if number else "to mend", Text(f"{problem}: {command}" if command else problem))
    Console(highlight=False).print(table)

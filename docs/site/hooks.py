"""What MkDocs does for the book beyond its configuration.

Pages link to files of the repository by their paths, so that they can be followed where the pages are read as files;
in the book such a link leads to the repository's page. The command line's reference is made from its own code.
"""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = Path(__file__).parent / ".package"
_LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")


def on_config(config: Any) -> Any:
    """Lays the package where it can be imported, whatever the repository's folder is called; lists the decisions."""
    (PACKAGE / "nstgpu").mkdir(parents=True, exist_ok=True)
    for path in [*ROOT.glob("*.py"), *(part.parent for part in ROOT.glob("*/__init__.py"))]:
        link = PACKAGE / "nstgpu" / path.name  # one by one: a virtual environment may lie beside them
        if not link.is_symlink():
            link.symlink_to(path, target_is_directory=path.is_dir())
    sys.path.insert(0, str(PACKAGE))
    for section in config["nav"]:
        for title, pages in section.items():
            if title == "Decisions":
                folder = Path(config["docs_dir"]) / "decisions"
                pages[1:] = sorted(f"decisions/{path.name}" for path in folder.glob("*.md") if path.name != "README.md")
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links out of docs/ made links to the repository; the reference of the command line put in its place."""
    folder = (Path(config["docs_dir"]) / page.file.src_uri).parent

    def elsewhere(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if files.get_file_from_path(_within(target, Path(config["docs_dir"]))) is not None or not target.exists():
            return link[0]  # MkDocs follows it, or says that it leads nowhere
        kind = "tree" if target.is_dir() else "blob"
        return f"{link[1]}{config['repo_url']}/{kind}/main/{target.relative_to(ROOT)}"

    markdown = _LINK.sub(elsewhere, markdown)
    return (
        markdown.replace("<!-- command line -->", command_line()) if "<!-- command line -->" in markdown else markdown
    )


def _within(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else ""


def command_line() -> str:
    """Every command with its arguments and options, as Markdown."""
    import click
    import typer

    from nstgpu.cli import app

    def described(command: Any, path: str, level: int) -> list[str]:
        context = click.Context(command, info_name=path)
        lines = [f"{'#' * level} {path}", "", (command.help or "").strip(), ""]
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                lines += described(child, f"{path} {name}", level + (level < 3))
            return lines
        lines += ["```", " ".join([path, *command.collect_usage_pieces(context)]), "```", ""]
        rows = [row for parameter in command.params if (row := option(parameter, context))]
        return lines + (["| argument or option | |", "|---|---|", *rows, ""] if rows else [])

    def option(parameter: Any, context: Any) -> str | None:
        if getattr(parameter, "hidden", False):
            return None
        if parameter.param_type_name == "argument":
            record = (parameter.metavar or parameter.name.upper(), getattr(parameter, "help", None) or "")
        else:
            record = parameter.get_help_record(context)
        name, text = (re.sub(r"\s+", " ", part).replace("|", "\\|") for part in record)
        return f"| `{name}` | {text} |"

    return "\n".join(described(typer.main.get_command(app), "nstgpu", 2))

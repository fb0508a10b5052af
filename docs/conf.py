"""How Sphinx builds the manual: `nox -s docs`."""

import ast
from pathlib import Path

from sphinx.application import Sphinx

import xpnet

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"

project = "xpnet"
author = copyright = "The xpnet developers"
version = release = xpnet.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_build", "templates", "pictures", "generated/gallery.md"]
templates_path = ["templates"]

html_theme = "furo"
html_title = f"xpnet {version}"

myst_heading_anchors = 3
autodoc_typehints = "none"  # numpydoc's sections say more
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
# A name in backticks is a link, where the reference has it.
default_role = "any"
suppress_warnings = ["ref.any"]


def write_gallery() -> None:
    """Write a page for each example, and a list of them with their pictures."""
    generated = HERE / "generated"
    (generated / "examples").mkdir(parents=True, exist_ok=True)
    entries = []
    for path in sorted(EXAMPLES.glob("*.py")):
        description = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        summary = description.partition("\n\n")[0]
        files = (HERE / "pictures").glob(f"{path.stem}*")
        pictures = [file.name for file in files if file.suffix in (".png", ".gif")]
        pictures.sort(key=lambda name: ("learning" in name, name))  # the list shows the first: no loss curve
        if not pictures:
            raise FileNotFoundError(f"docs/pictures has no picture of {path.name}. `nox -s docs` makes them.")
        shown = [f"![{summary}](/pictures/{name})" for name in pictures]
        entries.append(f"## [{path.stem}](/generated/examples/{path.stem}.md)\n\n{summary}\n\n{shown[0]}\n")
        source = f"```{{literalinclude}} /../examples/{path.name}\n:language: python\n```"
        page = "\n\n".join([f"# {path.name}", description, *shown, source])
        (generated / "examples" / f"{path.stem}.md").write_text(page + "\n", "utf-8")
    (generated / "gallery.md").write_text("\n".join(entries), "utf-8")


write_gallery()


def setup(app: Sphinx) -> None:
    # CONTRIBUTING.md stands outside of the manual, where GitHub looks for it; contributing.md includes it.
    def link_to_page(_app: Sphinx, _name: str, source: list[str]) -> None:
        source[0] = source[0].replace("(../CONTRIBUTING.md)", "(contributing.md)")

    app.connect("source-read", link_to_page)

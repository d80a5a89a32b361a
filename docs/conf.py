"""Sphinx settings of the site. `make docs` builds and checks it: scripts/docs.py."""

import os
import re
import tomllib
from pathlib import Path

project = "leaky_ext"
copyright = "the leaky_ext contributors"
pyproject = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
version = release = pyproject["project"]["version"]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx", "myst_parser", "sphinx_copybutton"]
exclude_patterns = ["README.md"]  # the list of pages: index.md includes it, and `sidebar` reads it
myst_heading_anchors = 3
napoleon_custom_sections = [("Shape", "notes_style")]
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
copybutton_exclude = ".linenos, .gp, .go"

# Without network, names of PyTorch's and Python's own documentation cannot be resolved, and external links not checked.
nitpicky = True
nitpick_ignore = [("py:class", "Figure")]  # matplotlib's, imported for type checkers alone
if os.environ.get("DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
else:
    nitpick_ignore_regex = [("py:.*", r"(torch|collections|os|fnmatch|functools)\b.*")]
    linkcheck_ignore = ["https?://"]

html_theme = "furo"
html_title = f"leaky_ext {version}"
html_favicon = "figures/icon.svg"
html_copy_source = False
html_show_sphinx = False


def resolve_short_name(app, env, node, contnode):
    """Docstrings name public objects without the module: `LearnableLeakyReLU`."""
    if node.get("refdomain") == "py":
        python, target = env.domains["py"], node["reftarget"]
        for name in python.objects:
            if name.endswith(f".{target}") and not name.startswith("leaky_ext.reference"):
                return python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], name, node, contnode)
    return None


def sidebar(app, docname, source):
    """Adds the pages that README.md lists to the sidebar, under the headings of README.md."""
    if docname == "index":
        for group in app.srcdir.joinpath("README.md").read_text().split("\n**")[1:]:
            links = re.findall(r"^- \[(.+?)\]\((.+?)\.md\)", group, re.MULTILINE)
            pages = "\n".join(f"{title} <{page}>" for title, page in links)
            pages = pages.replace("<benchmarks/README>", "<benchmarks/README>\nbenchmarks/*")
            caption = group.split("**")[0]
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{pages}\n```\n"


def setup(app):
    app.connect("source-read", sidebar)
    app.connect("missing-reference", resolve_short_name)

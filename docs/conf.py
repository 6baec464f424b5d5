"""How Sphinx makes the site from these pages: `make docs`."""

from importlib.metadata import version as version_of

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "Wool"
copyright = "the contributors of Wool"  # noqa: A001  (Sphinx asks for this name)
release = version_of("wool-core")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}

# Pages: Markdown that reads well on its own, too
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
highlight_language = "none"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div:not(.highlight-output):not(.highlight-text) > div.highlight > pre"

# Docstrings
default_role = "code"
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 72
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "Wool"
html_static_path = ["_static"]
html_css_files = ["wool.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#8a4b08", "color-brand-content": "#8a4b08"},
    "dark_css_variables": {"color-brand-primary": "#f0b46c", "color-brand-content": "#f0b46c"},
}


def setup(app: Sphinx) -> None:
    """Knows the blocks that show what the one before prints."""
    app.add_lexer("output", TextLexer)

"""Formulas between dollars become MathML, which browsers draw by themselves: no script, and no font from elsewhere."""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content, **_):
    return FORMULA.sub(_mathml, content)


def _mathml(found):
    tag, bracket, formula = found.groups()
    made = convert(html.unescape(formula.strip()), display="block" if bracket == "[" else "inline")
    if "\\" in made:
        raise PluginError(f"a formula has a command that is not known: {formula.strip()}")
    return f'<{tag} class="formula">{made}</{tag}>'

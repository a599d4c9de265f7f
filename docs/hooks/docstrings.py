"""What the reference of Python shows of docstrings and signatures.

A paragraph of a docstring about several names, `a, b: text`, is one about each of them. A field of a dataclass that has
to be given is shown without a default.
"""

import re

import griffe

SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +.*)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = SEVERAL.sub(_each, obj.docstring.value)

    def on_attribute_instance(self, *, attr, **_):
        if str(attr.value) == "dataclasses.field()":
            attr.value = None


def _each(found):
    indent, names, text = found.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))

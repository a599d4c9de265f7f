"""The structure of a compiled program, from its text."""

import re


def depths(text, instruction):
    """The number of loops around each `instruction` of a compiled program."""
    bodies = {}
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            lines = bodies[header[2]] = []
            if header[1]:
                entry = header[2]
        elif line.startswith("  "):
            lines.append(line)

    def found(name, depth):
        for line in bodies[name]:
            if re.search(rf" {instruction}(-start)?\(", line):
                yield depth
            for kind, called in re.findall(r"(body|condition|calls|to_apply)=%?([\w.-]+)", line):
                yield from found(called, depth + (kind in ("body", "condition")))

    return list(found(entry, 0))

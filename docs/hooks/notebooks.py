"""Notebooks become pages: their text, their code, and the outputs that are stored in them. Nothing is run."""

import base64
import json
from pathlib import Path

from mkdocs.structure.files import File


def on_files(files, config):
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page, pictures = page_of(json.loads(Path(notebook.abs_src_path).read_text(encoding="utf-8")), notebook.name)
        folder = notebook.src_uri.rpartition("/")[0]
        files.append(File.generated(config, f"{folder}/{notebook.name}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"{folder}/{name}", content=content))
    return files


def page_of(notebook: dict, name: str) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook, in Markdown, and its pictures by the names of their files."""
    lines, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode("".join(data["image/png"]))
                lines += [f"![Figure {len(pictures)} of this notebook]({picture})", ""]
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                lines += ["```text", text.rstrip("\n"), "```", ""]
    lines += [f"[The notebook itself, to be run: `{name}.ipynb`]({name}.ipynb)", ""]
    return "\n".join(lines), pictures

"""Files of the repository that pages link to, results and figures above all, are copied to the site.

A page links to them as a reader of the repository does, `../experiments/results/...`. A folder becomes a page that
lists its files.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)(#[^)]*)?(\))")


def on_files(files, config):
    docs = Path(config.docs_dir).resolve()
    for page in list(files.documentation_pages()):
        for found in LINK.finditer(page.content_string):
            target = _outside(page.src_uri, found[2], docs)
            if target:
                _add(files, config, target)
    return files


def on_page_markdown(markdown, page, config, **_):
    docs = Path(config.docs_dir).resolve()

    def linked(found):
        target = _outside(page.file.src_uri, found[2], docs)
        if not target:
            return found[0]
        uri = _uri(target)
        here = PurePosixPath(page.file.src_uri).parent
        return f"{found[1]}{os.path.relpath(uri, here)}{found[3] or ''}{found[4]}"

    return LINK.sub(linked, markdown)


def _outside(src_uri, link, docs):
    """The file of the repository that a page's link means, where it is none of the site's own."""
    target = Path(os.path.normpath(docs / PurePosixPath(src_uri).parent / link))
    return target if target.is_relative_to(ROOT) and not target.is_relative_to(docs) and target.exists() else None


def _uri(target):
    uri = target.relative_to(ROOT).as_posix()
    return f"{uri}/index.md" if target.is_dir() else uri


def _add(files, config, target):
    uri = _uri(target)
    if files.get_file_from_path(uri):
        return
    if not target.is_dir():
        files.append(File.generated(config, uri, abs_src_path=str(target)))
        return
    inside = sorted(path for path in target.iterdir() if path.is_file())
    for path in inside:
        _add(files, config, path)
    lines = [f"# {target.relative_to(ROOT).as_posix()}", "", *(f"- [{path.name}]({path.name})" for path in inside)]
    files.append(File.generated(config, uri, content="\n".join(lines)))

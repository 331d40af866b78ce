"""Read articles from JSON lines, Hugging Face datasets, MediaWiki dumps and FActScore's files.

Each reader streams: nothing is held but the article at hand. `open_documents` picks one by what the source looks
like.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from factscore_mod.knowledge_build import BuildReport, build
from factscore_mod.knowledge_format import FACTSCORE_SEPARATOR, Document, KnowledgeError, Redirect
from factscore_mod.knowledge_writer import Progress
from factscore_mod.processes import process_pool

_KINDS = (
    "a .jsonl file (also .gz, .bz2), a MediaWiki dump (.xml, .xml.gz, .xml.bz2), a .parquet file, a FActScore .db, "
    "a folder written by datasets' save_to_disk, or the name of a dataset as OWNER/NAME[:CONFIG]"
)


def open_documents(source: str, *, split: str = "train") -> Iterator[Document | Redirect]:
    """The articles of `source`, by the reader that fits its name.

    `split` is for datasets. Raises `KnowledgeError` where no reader fits or the source is not there.
    """
    path = Path(source)
    name = path.name.lower().removesuffix(".gz").removesuffix(".bz2")
    if not path.exists():
        if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source) and not name.endswith((".jsonl", ".xml", ".db")):
            dataset, _, config = source.partition(":")
            return read_hf(dataset, split, config=config or None)
        raise KnowledgeError(f"{source}: no such file; a source is {_KINDS}")
    if path.is_dir() or name.endswith(".parquet"):
        return read_hf(path, split)
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return read_jsonl(path)
    if name.endswith(".xml"):
        return read_mediawiki(path)
    if name.endswith((".db", ".sqlite", ".sqlite3")):
        return read_factscore_db(path)
    raise KnowledgeError(f"{source}: not a kind of file that articles are read from; a source is {_KINDS}")


def build_from(
    source: str,
    out: Path,
    *,
    passage_words: int = 256,
    split: str = "train",
    progress: Progress | None = None,
) -> BuildReport:
    """`build` a knowledge source from whatever `open_documents` can read."""
    documents = open_documents(source, split=split)
    return build(documents, out, passage_words=passage_words, progress=progress)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path), 1 << 20)
    if path.suffix == ".bz2":
        return io.BufferedReader(bz2.open(path), 1 << 20)
    return path.open("rb", buffering=1 << 20)


def read_jsonl(path: Path | str) -> Iterator[Document]:
    """One JSON object a line: `title`, `text` (a string, or a list of sentences), `redirects` (optional list).

    Raises `KnowledgeError` naming file, line and field at the first line that is not so.
    """
    path = Path(path)
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parse(line, f"{path}, line {number}")
    except EOFError as error:
        raise KnowledgeError(f"{path} is cut short behind line {number}; copy it again") from error
    except OSError as error:
        raise KnowledgeError(f"{path}, behind line {number}: {error}") from error


def _parse(line: bytes, where: str) -> Document:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise KnowledgeError(f"{where}: not JSON ({error}); is the file cut short?") from error
    if not isinstance(row, dict):
        raise KnowledgeError(f"{where}: {type(row).__name__} instead of an object with title and text")
    return _document(row.get("title"), row.get("text"), row.get("redirects", ()), where)


def _document(title: object, text: object, redirects: object, where: str) -> Document:
    if not isinstance(title, str) or not title.strip():
        raise KnowledgeError(f"{where}: field 'title' is {_shown(title)}; it must be a string that is not empty")
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = " ".join(part.strip() for part in text)
    if not isinstance(text, str):
        raise KnowledgeError(f"{where}: field 'text' is {_shown(text)}; it must be a string or a list of strings")
    if not isinstance(redirects, list | tuple) or not all(isinstance(part, str) for part in redirects):
        raise KnowledgeError(f"{where}: field 'redirects' is {_shown(redirects)}; it must be a list of strings")
    return Document(title, text, tuple(redirects))


def _shown(value: object) -> str:
    shown = "missing" if value is None else repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "..."


def read_hf(
    path_or_name: Path | str,
    split: str = "train",
    *,
    config: str | None = None,
    title: str = "title",
    text: str = "text",
) -> Iterator[Document]:
    """A dataset of the `datasets` library: a folder of `save_to_disk`, parquet, or a name (streamed).

    `title` and `text` are the columns to read. No code of a dataset is ever run.
    """
    import datasets

    path = Path(path_or_name)
    loaded: Any
    try:
        if path.suffix == ".parquet":
            loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        elif path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.load_dataset(str(path_or_name), config, streaming=True)
    except (OSError, ValueError) as error:
        raise KnowledgeError(f"dataset {path_or_name}: {error}") from error
    if isinstance(loaded, dict):
        if split not in loaded:
            raise KnowledgeError(f"dataset {path_or_name} has no split {split!r}; choose from {', '.join(loaded)}")
        loaded = loaded[split]
    columns = loaded.column_names or []
    missing = [column for column in (title, text) if columns and column not in columns]
    if missing:
        raise KnowledgeError(f"dataset {path_or_name} has no column {missing[0]!r}; it has {', '.join(columns)}")
    row = 0
    for batch in loaded.select_columns([title, text]).iter(batch_size=500):
        for found_title, found_text in zip(batch[title], batch[text], strict=True):
            yield _document(found_title, found_text, (), f"dataset {path_or_name}, row {row}")
            row += 1


def read_factscore_db(path: Path | str, *, table: str = "documents") -> Iterator[Document]:
    """The articles of a FActScore `.db` file as running text, to be cut anew."""
    from factscore_mod.knowledge import KnowledgeSource

    with closing(KnowledgeSource.open(path, table=table)) as source:
        for _, title, text in source.rows():
            if "<s>" in text or FACTSCORE_SEPARATOR in text:
                # The windows were cut anywhere, within words too, so they are joined as they are.
                whole = text.replace(FACTSCORE_SEPARATOR, "")
                text = " ".join(whole.replace("<s>", " ").replace("</s>", " ").split())
            yield Document(title, text)


def read_mediawiki(path: Path | str) -> Iterator[Document | Redirect]:
    """The articles and redirects of a MediaWiki XML dump (`pages-articles`), wiki markup removed.

    Needs mwxml and mwparserfromhell (`pip install 'llm-factuality-harness[mediawiki]'`). Parsing the markup is
    most of the work and goes on in one process a core.
    """
    try:
        import mwparserfromhell  # noqa: F401 - asked for here so that a missing one is told before the start
        import mwxml
    except ImportError as error:
        raise KnowledgeError(
            f"{path}: reading a MediaWiki dump needs {error.name}; pip install 'llm-factuality-harness[mediawiki]'"
        ) from error
    with _open(Path(path)) as file:
        try:
            yield from _parsed(_pages(mwxml.Dump.from_file(file)))
        except (EOFError, OSError) as error:
            raise KnowledgeError(f"{path} is cut short or damaged: {error}; download it again") from error
        except Exception as error:  # mwxml and expat have error classes of their own
            if type(error).__module__.split(".")[0] not in ("mwxml", "xml"):
                raise
            raise KnowledgeError(f"{path} is not a whole MediaWiki dump: {error}; download it again") from error


def _pages(dump: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    """Title, redirect target or empty, and wiki text of each page in the main namespace."""
    for page in dump:
        if page.namespace != 0:
            continue
        wikitext = ""
        for revision in page:
            wikitext = revision.text or ""
        # mwxml gives titles with underscores and redirect targets without.
        yield page.title.replace("_", " "), page.redirect or "", wikitext


def _parsed(pages: Iterator[tuple[str, str, str]]) -> Iterator[Document | Redirect]:
    workers = max(1, (os.cpu_count() or 2) - 1)
    flying: deque[tuple[str, str, Future[str] | None]] = deque()
    with process_pool(workers) as pool:
        for title, target, wikitext in pages:
            flying.append((title, target, None if target else pool.submit(plain_text, wikitext)))
            if len(flying) > 64 * workers:
                yield _settled(*flying.popleft())
        while flying:
            yield _settled(*flying.popleft())


def _settled(title: str, target: str, parsed: Future[str] | None) -> Document | Redirect:
    return Redirect(title, target) if parsed is None else Document(title, parsed.result())


_BACK_MATTER = re.compile(r"^==\s*(references|external links|further reading|notes)\s*==\s*$", re.I | re.M)
_NOT_PROSE = ("file:", "image:", "category:")
_DROPPED_TAGS = ("ref", "table", "gallery", "math", "timeline", "score")
_BLANK_LINES = re.compile(r"\n\s*\n+")


def plain_text(wikitext: str) -> str:
    """The prose of a page: no templates, tables, references, files or back matter."""
    import mwparserfromhell

    back_matter = _BACK_MATTER.search(wikitext)
    code = mwparserfromhell.parse(wikitext[: back_matter.start()] if back_matter else wikitext)
    for link in code.filter_wikilinks():
        if str(link.title).strip().lower().startswith(_NOT_PROSE):
            _remove(code, link)
    for tag in code.filter_tags():
        if str(tag.tag).lower() in _DROPPED_TAGS:
            _remove(code, tag)
    return _BLANK_LINES.sub("\n\n", code.strip_code()).strip()


def _remove(code: Any, node: Any) -> None:
    try:
        code.remove(node)
    except ValueError:  # it went with a node round it
        return

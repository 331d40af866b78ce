"""A teacher's answers in a file: JSON lines with `prompt` (or `subject`) and `text`."""

from __future__ import annotations

import json
from pathlib import Path

from harness.errors import UserError


def read_answers(path: Path) -> tuple[str, dict[str, str]]:
    """The text of the file, and its answers by prompt or subject.

    Raises UserError where it is missing, cannot be read, or has a line of another form.
    """
    if not path.is_file():
        raise UserError(f"--teacher: {path} does not exist; give file:PATH of a JSON-lines file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--teacher: {path}: cannot be read ({error}); give file:PATH of a JSON-lines file") from error
    answers: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
            about, said = row.get("prompt") or row["subject"], row["text"]
            if not (isinstance(about, str) and isinstance(said, str)):
                raise ValueError("both are to be texts")
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"--teacher: {path}:{number}: not a JSON object with `prompt` (or `subject`) and `text` "
                f"({error}); mend the line or leave it out"
            ) from error
        answers[about] = said
    return text, answers

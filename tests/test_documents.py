"""Documents hold what they promise: their links lead somewhere and their commands are commands."""

import re
import shlex
from pathlib import Path

import pytest

from so3k_md import cli

ROOT = Path(__file__).parents[1]
HIDDEN = {"build", "demo"}
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in HIDDEN for part in path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
# What the glossary replaces: non-local, long-range pairs, gradient or derivative, exported file, neighbor.
OLD_WORDS = re.compile(
    r"\b(neighbours?|artefacts?|far attention|beyond the cutoff|distant pairs|slopes?|lest|shipped)\b", re.I
)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
SETTING = re.compile(r"^\| `.*$", re.MULTILINE)  # a row of docs/training.md, whose words are the code's
NOT_YET = {"CHANGELOG.md", "ARCHITECTURE.md", "export/README.md"}
COMMAND = re.compile(r"^so3k-md (.+)|`so3k-md ([^`]+)`", re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_understood(path):
    """Every `so3k-md VERB …` that is written out has a verb and options that exist."""
    for line, quoted in COMMAND.findall(path.read_text()):
        words = shlex.split(line or quoted, comments=True)
        if words[0] not in cli.VERBS:
            assert words[0].startswith("-") or words[0] == "VERB", f"{path}: so3k-md {words[0]}"
        elif len(words) > 1 and not any(character in line + quoted for character in "[…|,"):
            cli.parse(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_are_those_of_the_glossary(path):
    """One word for one idea; names in code keep theirs."""
    if str(path.relative_to(ROOT)) not in NOT_YET:
        assert OLD_WORDS.findall(CODE.sub("", SETTING.sub("", path.read_text()))) == []

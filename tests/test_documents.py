"""Documents hold what they promise: links lead somewhere, commands are commands, releases have dates."""

import re
import shlex
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from so3k_md import __version__, cli

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
HISTORY = {"CHANGELOG.md"}  # what was written stays as it was
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
    if str(path.relative_to(ROOT)) not in HISTORY:
        assert OLD_WORDS.findall(CODE.sub("", SETTING.sub("", path.read_text()))) == []


def test_releases_have_dates_and_the_rest_is_unreleased():
    """What has changed since the newest release is a development version of the next."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    heading = re.compile(r"## \[(.+)\](?: - (\d{4}-\d{2}-\d{2}))?")
    found = [heading.fullmatch(line) for line in changelog.splitlines() if line.startswith("## ")]
    (unreleased, no_date), *releases = (match.groups() for match in found)
    assert (unreleased, no_date) == ("Unreleased", None)
    assert releases
    days = [date.fromisoformat(day) for _, day in releases]
    versions = [Version(version) for version, _ in releases]
    assert days == sorted(days, reverse=True)
    assert versions == sorted(set(versions), reverse=True)
    current, changed = Version(__version__), "\n- " in changelog.split("\n## ")[1]
    assert current.is_devrelease == changed
    assert current > versions[0] if changed else current == versions[0]


def test_the_version_stands_in_one_place():
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"version", "date-released"} & set(yaml.safe_load((ROOT / "CITATION.cff").read_text())) == set()


def test_citation_has_the_papers_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)
    assert citation["type"] == "software"
    papers = citation["references"]
    assert all({"type", "title", "authors", "year"} <= set(paper) for paper in papers)
    known = {f"https://doi.org/{paper['doi']}" for paper in papers if "doi" in paper}
    known |= {paper["url"] for paper in papers if "url" in paper}
    cited = re.findall(r"\]\((https://(?:doi\.org|arxiv\.org)/.+?)\)", (ROOT / "README.md").read_text())
    assert cited
    assert set(cited) == known

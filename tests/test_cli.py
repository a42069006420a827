"""The frame of the command line: verbs, help, exit codes and what a failure leaves on the terminal."""

import errno
import subprocess
import sys
from argparse import Namespace

import pytest

from so3k_md import cli
from so3k_md.errors import So3kError


@pytest.fixture
def failing(monkeypatch):
    """Run `so3k-md info x` with its work replaced by a function that raises the given exception."""

    def run(error: BaseException, *options: str) -> int:
        def raise_it(args: Namespace) -> None:
            raise error

        monkeypatch.setattr(cli.load_verb("info"), "run", raise_it)
        return cli.main(["info", "x", *options])

    return run


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main([verb, "--help"])
    assert leaving.value.code == 0
    assert f"so3k-md {verb}" in capsys.readouterr().out


def test_help_names_all_verbs(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert [verb for verb in cli.VERBS if f"\n    {verb} " not in out] == []


@pytest.mark.parametrize("heavy", ["torch", "numpy", "openmm", "ase", "mdtraj"])
def test_help_imports_nothing_heavy(heavy):
    code = (
        "import sys\nfrom so3k_md import cli\n"
        "try: cli.main(['--help'])\n"
        f"except SystemExit: sys.exit({heavy!r} in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_user_error_is_one_line_and_exit_code_2(failing, capsys):
    assert failing(So3kError("a\nb")) == 2
    assert capsys.readouterr().err == "so3k-md: error: a b\n"


@pytest.mark.parametrize("debug_first", [True, False])
def test_debug_adds_the_traceback(debug_first, monkeypatch, capsys):
    def fail(args: Namespace) -> None:
        raise So3kError("what, where, remedy")

    monkeypatch.setattr(cli.load_verb("info"), "run", fail)
    argv = ["--debug", "info", "x"] if debug_first else ["info", "x", "--debug"]
    assert cli.main(argv) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "Ctrl-C"),
        (ValueError("odd"), 1, "ValueError: odd; run again with --debug"),
        (OSError(errno.ENOSPC, "No space left on device", "out.pt"), 2, "No space left on device (out.pt)"),
        (ModuleNotFoundError("No module", name="mdtraj.utils"), 2, "pip install 'so3k-md[analysis]'"),
        (ModuleNotFoundError("No module named 'odd'", name="odd"), 1, "No module named 'odd'"),
    ],
)
def test_other_failures_are_one_line_too(error, code, said, failing, capsys):
    assert failing(error) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "did you mean train?"),
        (["xyzzy"], "choose from train"),
        (["info"], "so3k-md info --help"),
        (["info", "x", "--colour"], "--colour"),
    ],
)
def test_wrong_arguments_are_one_line(argv, said, capsys):
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is a device of Linux")
def test_full_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "so3k_md", "doctor", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "No space left" in result.stderr


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m so3k_md doctor --json | head -c 1"
    result = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")

"""What the scripts beside it have in common."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2].joinpath("docs/frameworks.md").read_text()


def documented(line):
    """Returns a line that the page shows, so that what is tested is what it says."""
    assert line in PAGE, f"docs/frameworks.md does not show {line}"
    return line


def refused(call, signature):
    """Runs a call that the server has to refuse, as it knows no function with these types."""
    expected = f"function presence.{signature} does not exist"
    try:
        call()
    except Exception as error:
        assert expected in re.sub(r"\s+", " ", str(error)), f"{expected}: {error}"
    else:
        raise AssertionError(f"not refused: {expected}")

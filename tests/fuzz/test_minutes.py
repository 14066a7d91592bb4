"""Ten minutes of fuzzing, with other seeds each round."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import main

pytestmark = pytest.mark.slow


@pytest.mark.timeout(1800)
def test_ten_minutes_find_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "10"]) == 0, capsys.readouterr().out

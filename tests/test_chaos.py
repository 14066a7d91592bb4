"""Ten random kills; ``python -m tests.chaos --runs 200`` is the long version."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.mark.timeout(1800)
def test_ten_random_signals_leave_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "10", "--seed", "5"]) == 0, capsys.readouterr().err
    assert "10 of 10 |" in capsys.readouterr().out

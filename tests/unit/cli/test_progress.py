"""How far a stage is, as a terminal and as a log show it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from verger.cli.progress import terminal_watch


@pytest.mark.parametrize("is_terminal", [True, False])
def test_training_tells_which_fit_has_ended(is_terminal: bool) -> None:
    """A terminal shows each of them, a log each tenth of them."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=120)
    with terminal_watch(console)("train", 20_622) as progress:
        for done in range(1, 21):
            progress.on_fits(done, 20)
    if is_terminal:
        assert "Training: fit 20 of 20" in text.getvalue()
    else:
        fits = [f"  fit {done} of 20" for done in range(2, 21, 2)]
        assert text.getvalue().splitlines() == ["Training: 20,622 photos", *fits]

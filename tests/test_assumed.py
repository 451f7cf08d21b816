"""What the page says, before the run, about what happened to the photo."""

import pytest

from def_hub.observation.assessment import Assessment
from def_hub.observation.degradation import Degradation
from def_hub.service.call import RunOptions
from def_hub.settings import PRESETS
from def_hub.space import options
from def_hub.space.assumed import Assumed, degradation, words
from def_hub.space.options import values_of


def test_what_is_said_follows_from_what_was_found_and_what_is_assumed() -> None:
    jpeg, clean = Assessment(Degradation(quality=70)), Assessment(Degradation())
    for measured, assumed, said in (
        (jpeg, "auto", "JPEG, quality about 70; will be cleaned while it is enlarged."),
        (jpeg, "clean", "Looks like JPEG, quality about 70, but is taken as it is."),
        (jpeg, "noise8", "Taken as: noise of about 8 levels; will be cleaned while it is enlarged."),
        (clean, "auto", "Looks clean; taken as it is."),
        (clean, "jpeg50", "Taken as: JPEG, quality about 50; will be cleaned while it is enlarged."),
        (Assessment(Degradation("nearest")), "auto", "Shrunk by nearest; will be taken into account."),
        (Assessment(Degradation(), shrinkable=2.0), "auto", "Looks clean; taken as it is. It was enlarged before"),
    ):
        assert words(measured, assumed).startswith(said)
    assert words(None, "auto") == ""


@pytest.mark.parametrize("setting", ["auto", "clean", "noise8", "jpeg70", "blur2+noise3+jpeg50"])
def test_widgets_hold_what_is_assumed(setting: str) -> None:
    held = Assumed.values(setting)
    assert degradation(*held) == setting
    assert options.chosen("fast", 4, 0, *held, *values_of("fast")).settings.degradation == setting


def test_what_cannot_be_assumed_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of auto, clean"):
        degradation("dirty", 0, 0, 0)
    with pytest.raises(ValueError, match="degradation: expected clean, jpegQ"):
        RunOptions.of("fast", degradation="jpg70")
    assert RunOptions.of("fast").settings.degradation == PRESETS["fast"].degradation

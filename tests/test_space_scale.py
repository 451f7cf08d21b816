"""The scale on the page and in the API, without a browser."""

from pathlib import Path

import pytest
from PIL import Image

from def_hub import DEFPipeline
from def_hub.service.call import RunOptions
from def_hub.service.runner import Runner
from def_hub.service.session import Session
from def_hub.service.uploads import check_photo
from def_hub.settings import SCALES
from def_hub.space import messages, results
from tests.conftest import EXAMPLES
from tests.test_space import finish, session  # noqa: F401


def said(pipe: DEFPipeline, session: Session, scale: int) -> str:  # noqa: F811
    return messages.forecast(Runner(pipe), session, RunOptions.of("fast", scale=scale))["messages"][0]["html"]


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_its_forecast_its_size_and_its_name(
    tiny_pipe: DEFPipeline,
    session: Session,  # noqa: F811
    scale: int,
) -> None:
    size = f"{32 * scale}×{24 * scale}"
    assert f"<b>{size}</b> out" in said(tiny_pipe, session, scale)
    result = finish(tiny_pipe, session, RunOptions.of("fast", scale=scale))
    for name in ("result", "bicubic", "enhanced", "source-colours", "confidence-colours"):
        assert Image.open(result.picture(name)).size == (32 * scale, 24 * scale), name
    assert result.picture("png").name == f"a b_x{scale}.png" and f"scale={scale}," in result.python
    assert size.replace("×", "x") == result.report["sizes"]["output"]


def test_the_cost_follows_the_scale(tiny_pipe: DEFPipeline, session: Session) -> None:  # noqa: F811
    costs = [session.cost(RunOptions.of(scale=scale)) for scale in (4, 6, 8)]
    assert costs[0].seconds < costs[1].seconds < costs[2].seconds and costs[0].bytes < costs[2].bytes
    assert [len(cost.passes) for cost in costs] == [1, 2, 2]


def test_a_result_that_would_be_too_large_is_refused_in_words(tiny_pipe: DEFPipeline, tmp_path: Path) -> None:
    Image.new("RGB", (1000, 1000)).save(tmp_path / "large.png")
    large = Session(check_photo(tmp_path / "large.png"))
    assert "×8 would be 64 million pixels; at most 16 million are made here" in said(tiny_pipe, large, 8)
    with pytest.raises(ValueError, match="Choose a smaller scale"):
        next(Runner(tiny_pipe).run(large, RunOptions.of(scale=8)))


def test_an_original_is_compared_with_results_of_its_size(
    tiny_pipe: DEFPipeline,
    session: Session,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = tmp_path / "original.png"
    Image.open(EXAMPLES / "street_hr.webp").convert("RGB").crop((0, 0, 64, 48)).save(path)
    session.set_original(path)
    finish(tiny_pipe, session, RunOptions.of("fast", scale=2))
    assert "Original" in results.known_pairs(session) and "dB" in results.scored(session)
    finish(tiny_pipe, session, RunOptions.of("fast"))
    assert "Original" not in results.known_pairs(session) and not results.scored(session)

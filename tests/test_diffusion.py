"""The diffusion loop: a perfect denoiser gives the true image; windows and one piece give the same image."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.diffusion.denoiser import Denoiser
from def_hub.diffusion.enhancer import DetailEnhancer
from def_hub.diffusion.normalization import SharedStatistics
from def_hub.observation.downsample import Downsample

from .conftest import make_unet
from .helpers.pictures import picture

OPERATOR = Downsample()
SCHEDULE = DDIMScheduler(beta_start=1e-6, beta_end=1e-2, beta_schedule="linear").alphas_cumprod


class Oracle(Denoiser):
    """Returns the clean image, for every window."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__(make_unet(6, 3), SCHEDULE)
        self.answer = answer * 2 - 1
        self.multiple = 4  # windows begin on the LR grid
        self.window = 128  # the statistics are measured on the whole picture

    def __call__(self, x_t: Tensor, timestep: int | Tensor, condition: Tensor) -> Tensor:
        # the condition identifies the window: it is unique in the picture
        known = OPERATOR.pinv(OPERATOR.forward(self.answer / 2 + 0.5)) * 2 - 1
        height, width = condition.shape[-2:]
        pieces = []
        for piece in condition:
            for top in range(0, known.shape[-2] - height + 1, 4):
                for left in range(0, known.shape[-1] - width + 1, 4):
                    if torch.allclose(known[0, :, top : top + height, left : left + width], piece, atol=1e-4):
                        pieces.append(self.answer[:, :, top : top + height, left : left + width])
        return torch.cat(pieces)


@pytest.mark.parametrize("mode", ("blend", "replace"))
def test_a_perfect_denoiser_gives_the_true_image(mode: str) -> None:
    truth = picture(64, 96)
    for window in (64, 32):
        enhancer = DetailEnhancer(Oracle(truth), OPERATOR, window=window, overlap=8, window_mode=mode)  # type: ignore[arg-type]
        result = enhancer(OPERATOR.forward(truth), num_inference_steps=3, eta=0.85)
        assert (result - truth).abs().max() < 1e-4


@pytest.mark.parametrize("channels", ((3, 3), (3, 6), (6, 3), (48, 48), (96, 48)))
@pytest.mark.parametrize("prediction", ("epsilon", "sample", "v_prediction"))
def test_every_kind_of_prior_runs_through_one_loop(channels: tuple[int, int], prediction: str) -> None:
    y = OPERATOR.forward(picture(72, 40))
    enhancer = DetailEnhancer(Denoiser(make_unet(*channels), SCHEDULE, prediction), OPERATOR, window=32)
    seen: list[tuple[int, int]] = []

    def callback(step: int, timestep: int, x_0: Tensor) -> None:
        assert (OPERATOR.forward(x_0) - y).abs().max() < 1e-4  # each estimate agrees with the input
        seen.append((step, timestep))

    a, b, c = (
        enhancer(y, num_inference_steps=4, eta=0.5, generator=torch.Generator().manual_seed(s), callback=callback)
        for s in (1, 1, 2)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (1, 3, 72, 40) and (OPERATOR.forward(a) - y).abs().max() < 1e-4
    assert seen[:4] == [(0, 999), (1, 749), (2, 499), (3, 249)]


def test_a_local_denoiser_gives_the_same_image_in_windows_and_in_one_piece() -> None:
    class Local(Denoiser):
        def __call__(self, x_t: Tensor, timestep: int | Tensor, condition: Tensor) -> Tensor:
            return 0.5 * x_t.tanh() + 0.3 * condition

    local = Local(make_unet(6, 3), SCHEDULE)
    y = OPERATOR.forward(picture(96, 64))
    whole, pieces = (
        DetailEnhancer(local, OPERATOR, window=w, overlap=8, window_batch=2)(
            y, num_inference_steps=5, eta=0.7, generator=torch.Generator().manual_seed(0)
        )
        for w in (96, 32)
    )
    assert (whole - pieces).abs().max() < 1e-5


@pytest.mark.parametrize("which", ("random", "embedded"))
def test_a_network_with_group_norms_gives_the_same_image_in_windows_and_in_one_piece(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the picture is flat: with statistics of their own, windows would disagree with the whole picture
    about all of it."""
    torch.manual_seed(0)
    unet = make_unet(6, 3) if which == "random" else DEFPipeline.from_pretrained().unet
    denoiser = Denoiser(unet, SCHEDULE, "sample")
    denoiser.window = 512
    truth = picture(512, 512)
    truth[..., 256:] = 0.5
    y = OPERATOR.forward(truth)

    def enhanced(window: int) -> Tensor:
        enhancer = DetailEnhancer(denoiser, OPERATOR, window=window, window_batch=2)
        return enhancer(y, num_inference_steps=2, generator=torch.Generator().manual_seed(0))

    whole = enhanced(512)
    assert (enhanced(256) - whole).abs().max() < 1 / 255

    monkeypatch.setattr(SharedStatistics, "__torch_function__", lambda _, f, types, a=(), k=None: f(*a, **(k or {})))
    assert (enhanced(256) - whole).abs().max() > 1 / 255


def test_attention_is_normalised_in_its_own_layout() -> None:
    norm, picture_ = torch.nn.GroupNorm(2, 4), torch.randn(1, 6, 4).mT  # the layout in diffusers' attention
    with SharedStatistics() as shared:
        assert torch.equal(norm(picture_), norm(picture_.contiguous()))
        shared.fix()
        assert torch.allclose(norm(picture_), torch.nn.GroupNorm(2, 4)(picture_.contiguous()), atol=1e-5)


def test_each_picture_of_a_batch_keeps_its_own_statistics() -> None:
    torch.manual_seed(0)
    norm, pictures = torch.nn.GroupNorm(2, 4), torch.randn(2, 4, 8, 8) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = norm(pictures)
    with SharedStatistics() as shared:
        assert torch.equal(norm(pictures), expected)
        shared.fix()
        for _ in range(2):  # as often as needed
            windows = torch.cat([pictures[..., :4, :], pictures[..., 4:, :]])
            assert torch.allclose(norm(windows), torch.cat([expected[..., :4, :], expected[..., 4:, :]]), atol=1e-5)


def test_a_callback_may_replace_the_estimate() -> None:
    y = OPERATOR.forward(picture(32, 32))
    enhancer = DetailEnhancer(Denoiser(make_unet(6, 3), SCHEDULE), OPERATOR, window=32)
    grey = torch.full((1, 3, 32, 32), 0.5)
    assert torch.allclose(enhancer(y, num_inference_steps=2, callback=lambda *_: grey), grey)


def test_a_later_start_keeps_more_of_the_input() -> None:
    enhancer = DetailEnhancer(Denoiser(make_unet(6, 3), SCHEDULE), OPERATOR, window=32)
    assert enhancer.timesteps(1) == [999]
    assert enhancer.timesteps(2, start=0.3) == [299, 149]
    assert enhancer.timesteps(1000)[::999] == [999, 0]


def test_without_a_step_the_prior_is_left_out() -> None:
    """I_DE is then A†y, or the nearest picture that agrees with the file."""
    enhancer, y = DetailEnhancer(Denoiser(make_unet(6, 3), SCHEDULE), OPERATOR, window=32), torch.rand(1, 3, 8, 8)
    assert torch.equal(enhancer(y, num_inference_steps=0), OPERATOR.pinv(y))
    half = enhancer(y, num_inference_steps=0, project=lambda x: x / 2)
    assert torch.equal(half, OPERATOR.pinv(y) / 2)


def test_epsilon_and_v_are_inverted_exactly() -> None:
    """Given the true noise, either prediction returns the clean image; checked against the definitions."""
    x, noise = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 3, 32, 32)
    t = torch.tensor([10, 900])
    alpha = SCHEDULE[t].view(-1, 1, 1, 1)
    x_t = alpha.sqrt() * x + (1 - alpha).sqrt() * noise
    for prediction, output in (("epsilon", noise), ("v_prediction", alpha.sqrt() * noise - (1 - alpha).sqrt() * x)):
        denoiser = Denoiser(make_unet(3, 3), SCHEDULE, prediction)
        denoiser.unet.forward = lambda *_, output=output, **__: (output,)  # type: ignore[method-assign]
        assert (denoiser(x_t, t, x) - x).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"num_inference_steps": -1}, "num_inference_steps"),
        ({"num_inference_steps": 1001}, "0 … 1000, got 1001"),
        ({"eta": 1.5}, "eta"),
        ({"start": 0.0}, "start"),
    ),
)
def test_invalid_settings_are_refused(options: dict, message: str) -> None:
    enhancer = DetailEnhancer(Denoiser(make_unet(6, 3), SCHEDULE), OPERATOR, window=32)
    with pytest.raises(ValueError, match=message):
        enhancer(torch.rand(1, 3, 8, 8), **options)


def test_refused_networks() -> None:
    with pytest.raises(ValueError, match=r"must take 3 \(unconditional\) or 6 and more"):
        Denoiser(make_unet(5, 3), SCHEDULE)
    with pytest.raises(ValueError, match="must return 3p² or 6p² channels"):
        Denoiser(make_unet(6, 4), SCHEDULE)
    with pytest.raises(ValueError, match="expected epsilon, sample or v_prediction"):
        Denoiser(make_unet(6, 3), SCHEDULE, "flow")
    with pytest.raises(ValueError, match="multiple of 8"):
        DetailEnhancer(Denoiser(make_unet(96, 48), SCHEDULE), OPERATOR, window=36)


def test_a_picture_that_fits_into_a_window_is_seen_whole_and_padded_minimally() -> None:
    sizes: list[tuple[int, ...]] = []

    class Seen(Denoiser):
        def __call__(self, x_t: Tensor, timestep: int | Tensor, condition: Tensor) -> Tensor:
            sizes.append(tuple(x_t.shape))
            return condition

    denoiser = Seen(make_unet(96, 48), SCHEDULE)  # folded 4×4, halved once: multiples of 8 pixels
    enhancer = DetailEnhancer(denoiser, OPERATOR, window=128, smallest=32, window_batch=1)
    for height, width in ((12, 20), (100, 124), (132, 60)):
        enhancer(OPERATOR.forward(picture(height, width)), num_inference_steps=1)
    # a picture in windows: first the sample for the statistics
    assert sizes == [(1, 3, 32, 32), (1, 3, 104, 128), (1, 3, 136, 64), (1, 3, 128, 64), (1, 3, 128, 64)]
    with pytest.raises(ValueError, match="smallest must not exceed the window's 64, got 128"):
        DetailEnhancer(denoiser, OPERATOR, window=64, smallest=128)

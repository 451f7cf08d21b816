"""The script of `make demo`: enlarge a shipped example with its references and save every intermediate result."""

from pathlib import Path

from def_hub import images, visualization
from def_hub.cli import main
from def_hub.evaluation.metrics import Protocol, psnr
from def_hub.observation.downsample import make_operator

here, out = Path(__file__).resolve().parent, Path("outputs/demo")

status = main(
    ["upscale", str(here / "street_lr.png")]
    + ["--ref", str(here / "street_ref1.jpg"), "--ref", str(here / "street_ref2.jpg")]
    + ["-o", str(out / "result.png"), "--save-intermediates", str(out)]
)
if status:
    raise SystemExit(status)

small, truth = images.to_tensor(here / "street_lr.png"), images.to_tensor(here / "street_hr.webp")
result = images.to_tensor(out / "result.png")
images.save_image(visualization.before_after(small, result), out / "before_after.png")

plain = make_operator().upsample(small)
gain = [psnr(picture, truth).item() for picture in (plain, result)]
print(f"against the true photograph: bicubic {gain[0]:.2f} dB, this result {gain[1]:.2f} dB ({Protocol()})")
print(f"\nThe pictures are in {out}/:")
for path in sorted(out.iterdir()):
    print(f"  {path}")
print("\nLook at before_after.png first, then matches.png and provenance.png.")
print("The browser interface: .venv/bin/def-hub app")

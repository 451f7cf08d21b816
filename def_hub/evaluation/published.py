"""Figures of published tables, to stand below what was measured. Nothing here was measured by us."""

COUNTS = {"CUFED5": 126, "WR-SR": 80, "Urban100": 100, "Manga109": 109, "Sun80": 80}
"""Pictures of the whole data sets, which the figures are for."""

SYSTEMS = ("srcnn", "edsr", "esrgan", "ranksrgan", "srntt", "ttsr", "masa", "c2-matching")
"""What the paper compares itself with, as `def-hub evaluate --method` calls it."""

TRAINED_HERE = " (small, trained here)"
"""After the name of such a network whose weights are our trainer's: its rows say nothing about its authors'."""

Figure = tuple[float, float]

FIGURES: dict[str, tuple[Figure | None, ...]] = {
    "SRCNN": ((25.33, 0.745), (27.37, 0.767), (24.41, 0.738), (27.12, 0.850), (28.26, 0.781)),
    "EDSR": ((25.93, 0.777), (28.07, 0.793), (25.51, 0.783), (28.93, 0.891), (28.52, 0.792)),
    "ESRGAN": ((21.90, 0.633), (26.07, 0.726), (20.91, 0.620), (23.53, 0.797), (24.18, 0.651)),
    "RankSRGAN": ((22.31, 0.635), (26.15, 0.719), (21.47, 0.624), (25.04, 0.803), (25.60, 0.667)),
    "SRNTT": ((25.61, 0.764), (26.53, 0.745), (25.09, 0.774), (27.54, 0.862), (27.59, 0.756)),
    "SRNTT-rec": ((26.24, 0.784), None, (25.50, 0.783), (28.95, 0.885), (28.54, 0.793)),
    "TTSR": ((25.53, 0.765), (26.83, 0.762), (24.62, 0.747), (28.70, 0.886), (28.59, 0.774)),
    "TTSR-rec": ((27.09, 0.804), None, (25.87, 0.784), (30.09, 0.907), (30.02, 0.814)),
    "MASA": ((24.92, 0.729), None, (23.78, 0.712), (27.34, 0.848), (27.12, 0.708)),
    "MASA-rec": ((27.54, 0.814), None, (26.09, 0.786), None, (30.15, 0.815)),
    "C2-Matching": ((27.16, 0.805), (27.80, 0.780), (25.52, 0.764), (29.73, 0.893), (29.75, 0.799)),
    "C2-Matching-rec": ((28.24, 0.841), None, (26.03, 0.785), (30.47, 0.911), (30.18, 0.817)),
    "AMSA": ((27.31, 0.809), None, (25.60, 0.770), (29.79, 0.896), (29.83, 0.803)),
    "AMSA-rec": ((28.50, 0.849), None, (26.18, 0.789), (30.57, 0.914), (30.29, 0.819)),
    "DATSR": ((27.95, 0.835), None, None, None, None),
    "DATSR-rec": ((28.72, 0.856), None, None, None, None),
    "DEF (the paper)": ((27.47, 0.826), (27.60, 0.777), (25.92, 0.780), (30.21, 0.893), (29.77, 0.800)),
}
"""PSNR in dB and SSIM, ×4 of bicubic LR pictures, on Y, in the order of `COUNTS`; None where none was published. "-rec"
is trained on the reconstruction loss alone."""


def markdown(measured: dict[str, int]) -> str:
    """The published figures for those of the measured data sets (name → pictures) that have some; else empty.

    What differs from a measurement is said above them: the number of pictures, and the border.
    """
    known = [name for name in COUNTS if name in measured]
    if not known:
        return ""
    parts = [f"{name}: {measured[name]} of {COUNTS[name]} pictures here" for name in known]
    lines = [
        "Published figures for the whole sets, PSNR / SSIM on Y, as the papers print them; C2-Matching, AMSA and DATSR "
        f"cut 4 px from the border, the others nothing. {'; '.join(parts)}.",
        "",
        f"| method | {' | '.join(known)} |",
        "|---|" + "---:|" * len(known),
    ]
    for method, figures in FIGURES.items():
        of = dict(zip(COUNTS, figures, strict=True))
        cells = ["–" if (figure := of[name]) is None else f"{figure[0]:.2f} / {figure[1]:.3f}" for name in known]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)

"""Prints the tables of `docs/scale.md` as Markdown: arithmetic alone; that page has the origin of each assumption."""

SLICE = 256 * 256
SERIES, CLIP = 30 * SLICE, 16 * SLICE
SIZES, GPUS = (1_130, 100_000, 10_000_000), (1, 8, 64)
EPOCHS, IMAGENET = 100, 1_281_167
PEAK, MATRIX, BANDWIDTH = 989e12, 798e12, 3.0e12
SHARES = {"low": 0.10, "middle": 0.18, "high": 0.30}
PRICE, CHEAP, DEAR = 3.0, 2.0, 5.0
KILOWATT, STORE = 10.2 / 8, 0.023e-9
LOCAL, SHARED, IMPORT = 2 * 0.2e-3, 2 * 1e-3, 90 * 2.1 / 192


def resnet18(side: int, channels: int) -> tuple[int, int]:
    """Multiply-adds, and numbers written, by the convolutions of one forward pass."""
    side //= 2
    macs, written = channels * 64 * 49 * side**2, 64 * side**2
    side, before = side // 2, 64
    for width in (64, 128, 256, 512):
        shortcut = width != before
        side //= 2 if shortcut else 1
        macs += ((before + 3 * width) * width * 9 + shortcut * before * width) * side**2
        written += (4 + shortcut) * width * side**2
        before = width
    return macs, written


def number(x: float) -> str:
    """Two digits, or all those before the point."""
    return f"{x:,.0f}" if x >= 9.95 else f"{x:.2g}"


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} s"


def table(*rows: list[str]) -> None:
    """The first row is the header."""
    for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]):
        print("|", " | ".join(row), "|")
    print()


def published() -> None:
    """Training rates of others, and what share of its peak a GPU reaches by them."""
    ours = 6 * resnet18(224, 3)[0]
    crops = ours * (0.75 * 160**2 + 0.25 * 192**2) / 224**2
    rows = {
        "ResNet-18, 160 to 192 px, A100 40 GB": (88 * IMAGENET / (187.3 * 60), crops, 312, 1.555),
        "ResNet-18, 224 px, RTX 3090": (3482, ours, 71, 0.936),
        "ResNet-50, 224 px, each of 8 H100": (36 * IMAGENET / (13.466 * 60) / 8, 6 * 4.09e9, 989, 3.35),
    }
    lines = []
    for name, (rate, flop, peak, bandwidth) in rows.items():
        shares = (rate * flop / peak / 1e12, rate * flop / 989e12 * 3.35 / bandwidth)
        lines.append([name, f"{rate:,.0f}", f"{flop / 1e9:.1f}", *(f"{share:.0%}" for share in shares)])
    table(["network", "pictures/s", "GFLOP each", "of its peak", "of an H100's, by bandwidth"], *lines)


def main() -> None:
    """Print all tables."""
    macs, written = resnet18(224, 1)
    step = 16 * (2 * 3 + 2) * 2 * macs
    ceiling = 6 * macs / PEAK / (6 * macs / MATRIX + 15 * 2 * written / BANDWIDTH)
    print(f"forward {2 * macs / 1e9:.2f} GFLOP; exam-step {step / 1e12:.3f} TFLOP; ceiling {ceiling:.0%}\n")
    published()

    rates = {name: share * PEAK / step for name, share in SHARES.items()}
    lines = [
        [f"{n}, {SHARES[n]:.0%}", f"{r:,.0f}", f"{16 * r:,.0f}", *(number(g * r * CLIP / 1e9) for g in GPUS)]
        for n, r in rates.items()
    ]
    table(["share of peak", "exam-steps/s", "reads/s", *(f"GB/s on {g}" for g in GPUS)], *lines)
    storage, work, costs = [], [], []
    for n in SIZES:
        for planes in (1, 3):
            bytes_, steps = planes * n * SERIES, planes * min(EPOCHS * n, 1000 * IMAGENET / 16)
            low, middle, high = (steps / rates[name] / 3600 for name in SHARES)
            who, walls = [f"{n:,}", str(planes)], [duration(3600 * middle / g) for g in GPUS]
            storage.append([*who, f"{bytes_ / 1e9:,.0f} GB", f"${number(STORE * bytes_)}"])
            hours = [number(middle), f"{number(high)} to {number(low)}"]
            work.append([*who, f"{steps / n / planes:.0f}", f"{steps / 1e6:.3g} M", *hours, *walls])
            spread = f"${number(CHEAP * high)} to ${number(DEAR * low)}"
            costs.append([*who, f"${number(PRICE * middle)}", spread, f"{number(KILOWATT * middle)} kWh"])
    table(["exams", "planes", "on disk", "object store, a month"], *storage)
    names = ["epochs", "exam-steps", "GPU hours", "high to low share", *(f"on {g}" for g in GPUS)]
    table(["exams", "planes", *names], *work)
    table(["exams", "planes", "GPU cost", "best to worst case", "energy"], *costs)
    starts = [[f"{n:,}", *(duration(n * s) for s in (LOCAL, SHARED, IMPORT))] for n in SIZES]
    table(["exams", "opens, local disk", "opens, shared disk", "import of three planes, one core"], *starts)


if __name__ == "__main__":
    main()

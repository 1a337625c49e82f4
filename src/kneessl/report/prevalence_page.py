"""The HTML page of AUC against prevalence, one file with everything in it, and its figure as PNG."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from kneessl.evaluation.bootstrap import Interval
from kneessl.evaluation.rare_positives import ARMS, PrevalenceRow
from kneessl.files import replacing
from kneessl.report import figures
from kneessl.report.arm_lines import draw_arms
from kneessl.report.page import PageHead, write_page
from kneessl.report.prevalence_table import BALANCES, READOUTS, Panels, loss_text, share_text
from kneessl.report.strips import Key, key

_BESIDE = 1.04
"""Factor by which the arms' bars at one prevalence stand apart, on the logarithmic axis."""
_DOTS_PER_INCH = 200
_KEYS: list[Key] = [key(arm, k) for k, arm in enumerate(ARMS)]


def write_prevalence_page(path: Path, head: PageHead, panels: Panels, positives: Mapping[float, int]) -> None:
    """Write the page of AUC against prevalence, as `write_page` does.

    Args:
        path: The HTML file.
        head: What was compared; its settings are those that were the same for all trainings.
        panels: For each, the rows of `kneessl.evaluation.rare_positives.prevalence_rows`.
        positives: How many training exams are positive at each prevalence.
    """
    with _drawn(panels) as figure:
        picture = figures.svg(figure, _alt(panels))
    write_page(
        path,
        "prevalence.html",
        head,
        keys=_KEYS,
        arms=ARMS,
        picture=picture,
        verdicts=[(_name(panel.readout, panel.balance), _verdict(rows)) for panel, rows in panels.items()],
        groups=[
            (
                _name(panel.readout, panel.balance),
                [(share_text(row.prevalence), positives[row.prevalence], _cells(row)) for row in rows],
            )
            for panel, rows in panels.items()
        ],
    )


def write_prevalence_png(path: Path, panels: Panels) -> None:
    """Write the page's figure as PNG, with the arms' names in it."""
    with _drawn(panels) as figure, replacing(path) as partial:
        figure.legend(
            figure.axes[0].get_lines()[: len(ARMS)], list(ARMS), loc="outside upper left", ncols=2, frameon=False,
            handlelength=4,
        )  # fmt: skip
        figure.savefig(partial, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})


def _name(readout: str, balance: str) -> str:
    text = f"{READOUTS[readout]}; {BALANCES[balance]}"
    return text[0].upper() + text[1:]


def _cells(row: PrevalenceRow) -> list[tuple[str, str] | None]:
    """What stands in a row of the table: AUC and loss of each arm, and the difference; None for a dash."""
    cells: list[tuple[str, str] | None] = []
    for arm in ARMS:
        arm_at = row.arms.get(arm)
        if arm_at is None:
            cells += [None, None]
        else:
            auc = arm_at.auc
            cells += [(f"{auc.value:.3f}", f"{auc.low:.3f} to {auc.high:.3f}"), _percent(arm_at.loss)]
    return [*cells, _percent(row.less)]


def _percent(loss: Interval | None) -> tuple[str, str] | None:
    if loss is None:
        return None
    value, interval = loss_text(loss)
    return f"{value} %", interval


@contextmanager
def _drawn(panels: Panels) -> Iterator[Figure]:
    """AUC against prevalence: a row of axes for each readout, a column for each balance, an arm a line.

    The lines of the arms are the first ones of each axes, in the order of `ARMS`.
    """
    readouts, balances = (list(dict.fromkeys(panel[k] for panel in panels)) for k in (0, 1))
    arms = (arm for rows in panels.values() for row in rows for arm in row.arms.values())
    lowest = min((min(arm.auc.low, *arm.by_seed) for arm in arms), default=0.5)
    with figures.canvas(10, 3 * len(readouts)) as (figure, whole):
        whole.remove()
        grid = figure.subplots(len(readouts), len(balances), sharex=True, sharey=True, squeeze=False)
        for (readout, balance), rows in panels.items():
            axes = grid[readouts.index(readout), balances.index(balance)]
            _draw(axes, rows)
            axes.set_title(BALANCES[balance] if readout == readouts[0] else "", fontsize=9)
        for k, readout in enumerate(readouts):
            grid[k, 0].set_ylabel(f"AUC,\n{READOUTS[readout].replace(', ', ',' + chr(10))}")
        for axes in grid[-1]:
            axes.set_xlabel("Positive training exams")
        grid[0, 0].set_ylim(min(0.45, lowest - 0.02), 1.01)
        yield figure


def _draw(axes: Axes, rows: Sequence[PrevalenceRow]) -> None:
    axes.set_xscale("log")
    dots = [
        [
            (row.prevalence * _BESIDE ** (2 * k - 1), arm.auc.value, (arm.auc.low, arm.auc.high), arm.by_seed)
            for row in rows
            if (arm := row.arms.get(one.name)) is not None
        ]
        for k, one in enumerate(_KEYS)
    ]
    draw_arms(axes, _KEYS, dots, 4.5)
    shares = sorted(row.prevalence for row in rows)
    axes.set_xlim(shares[0] / 1.3, shares[-1] * 1.3)
    axes.xaxis.set_major_locator(FixedLocator(shares))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: share_text(value))


def _alt(panels: Panels) -> str:
    texts = []
    for (readout, balance), rows in panels.items():
        for arm in ARMS:
            values = [f"{r.arms[arm].auc.value:.3f} at {share_text(r.prevalence)}" for r in rows if arm in r.arms]
            texts.append(f"{_name(readout, balance)}, {arm}: {', '.join(values) or 'failed'}")
    return f"AUC against the share of positive training exams, on a logarithmic axis. {'. '.join(texts)}."


def _verdict(rows: Sequence[PrevalenceRow]) -> str:
    """Where which arm loses less, and how much both lose at the lowest prevalence at which both have scores."""
    compared = [(share_text(row.prevalence), row.less) for row in rows if row.less]
    if not compared:
        return "not compared, since trainings failed."
    places = {
        "self-supervised loses less at": [share for share, less in compared if less.low > 0],
        "supervised loses less at": [share for share, less in compared if less.high < 0],
        "not told apart at": [share for share, less in compared if less.low <= 0 <= less.high],
    }
    said = "; ".join(f"{verdict} {', '.join(shares)}" for verdict, shares in places.items() if shares)
    rarest = min((row for row in rows if row.less), key=lambda row: row.prevalence)
    lost = " and ".join(f"{arm} {loss_text(loss)[0]} %" for arm in ARMS if (loss := rarest.arms[arm].loss))
    text = f"{said}. At {share_text(rarest.prevalence)}, {lost} of the AUC at 50 % is lost."
    return text.replace(" %", "\u00a0%")

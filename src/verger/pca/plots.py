"""Pictures of a result, by matplotlib."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

from verger.engine.home import environment_for_block, matplotlib_variables
from verger.language import messages

if TYPE_CHECKING:
    from matplotlib.axis import Axis

    from verger.pca.fit import FittedPCA

#: Components that the scree plot shows; later ones are too small to see.
SHOWN_COMPONENTS = 100
#: How French writes an English number: 1 234,5 %.
_FRENCH = str.maketrans({",": "\u202f", ".": ",", "%": "\u00a0%"})


def import_matplotlib() -> None:
    """Import what a plot needs, which takes as long as a fit; also where there is no home."""
    with environment_for_block(matplotlib_variables()):
        import matplotlib.figure  # noqa: F401 - it looks for its folder once, when it is imported


def scree_plot(pca: FittedPCA, lang: str | None = None) -> bytes:
    """Draw the spectrum: bars, the running sum, the lines at 80 % and 90 %, the chosen k.

    Parameters
    ----------
    pca : FittedPCA
    lang : str, optional
        One of :data:`verger.language.LANGUAGES`; English by default.

    Returns
    -------
    bytes
        A PNG.
    """
    import_matplotlib()
    from matplotlib.figure import Figure

    say = partial(_say, lang)
    n = min(SHOWN_COMPONENTS, len(pca.mean), max(pca.n_samples - 1, 1))
    component = range(1, n + 1)
    ratio, total_ratio = pca.explained_variance_ratio[:n], pca.cumulative_ratio
    figure = Figure(figsize=(8, 4.4), dpi=180, layout="constrained")
    bars = figure.subplots()
    bars.bar(component, ratio, color="#7fb08a", label=say("each component"))
    bars.set(xlabel=say("principal component"), ylabel=say("share of the variance"))
    bars.set(xlim=(0, n + 1))
    total = bars.twinx()
    total.plot(component, total_ratio[:n], color="#1d5c3a", linewidth=2, label=say("running sum"))
    for share, style in ((0.80, "--"), (0.90, ":")):
        reached = say("{} at k = {}", f"{share:.0%}", f"{pca.k_for(share)}")
        total.axhline(share, color="#b4552d", linestyle=style, linewidth=1.2, label=reached)
    k = pca.n_components
    numbers = f"{k}", f"{total_ratio[k - 1]:.1%}"
    if k <= n:
        chosen = say("chosen: k = {} keeps {}", *numbers)
        total.axvline(k, color="#334155", linewidth=1.2, label=chosen)
    else:
        chosen = say("chosen: k = {} keeps {} (beyond this plot)", *numbers)
        total.plot([], [], color="#334155", label=chosen)
    total.set(ylabel=say("share of the variance, summed"), ylim=(0, 1.02))
    for axes in (bars, total):
        _show_percent(axes.yaxis, lang)
        axes.spines[["top"]].set_visible(False)
    handles = [*bars.get_legend_handles_labels()[0], *total.get_legend_handles_labels()[0]]
    total.legend(handles=handles, loc="center right", frameon=True)
    bars.set_title(say("PCA of {} photos' features", f"{pca.n_samples:,}"), loc="left")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _show_percent(axis: Axis, lang: str | None) -> None:
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    percent = PercentFormatter(1.0)
    percent.set_axis(axis)
    axis.set_major_formatter(FuncFormatter(lambda x, at: _say(lang, "{}", percent(x, at))))


def _say(lang: str | None, english: str, *numbers: str) -> str:
    """Fill numbers into a message, both as the language writes them."""
    if lang != "fr":
        return english.format(*numbers)
    in_french = (number.translate(_FRENCH) for number in numbers)
    return messages("plot").get(english, english).format(*in_french)

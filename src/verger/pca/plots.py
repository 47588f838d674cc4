"""Pictures of a result, by matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from verger.engine.home import environment_for_block, matplotlib_variables

if TYPE_CHECKING:
    from verger.pca.fit import FittedPCA

#: Components that the scree plot shows; later ones are too small to see.
SHOWN = 100


def import_matplotlib() -> None:
    """Import what a plot needs, which takes as long as a fit; also where there is no home."""
    with environment_for_block(matplotlib_variables()):
        import matplotlib.figure  # noqa: F401 - it looks for its folder once, when it is imported


def scree_plot(pca: FittedPCA) -> bytes:
    """Draw the spectrum: bars, the running sum, the lines at 80 % and 90 %, the chosen k.

    Parameters
    ----------
    pca : FittedPCA

    Returns
    -------
    bytes
        A PNG.
    """
    import_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    n = min(SHOWN, len(pca.mean), max(pca.n_samples - 1, 1))
    component = range(1, n + 1)
    figure = Figure(figsize=(8, 4.4), dpi=180, layout="constrained")
    bars = figure.subplots()
    bars.bar(component, pca.explained_variance_ratio[:n], color="#7fb08a", label="each component")
    bars.set(xlabel="principal component", ylabel="share of the variance", xlim=(0, n + 1))
    total = bars.twinx()
    total.plot(
        component, pca.cumulative_ratio[:n], color="#1d5c3a", linewidth=2, label="running sum"
    )
    for share, style in ((0.80, "--"), (0.90, ":")):
        k = pca.k_for(share)
        total.axhline(
            share, color="#b4552d", linestyle=style, linewidth=1.2, label=f"{share:.0%} at k = {k}"
        )
    kept = pca.cumulative_ratio[pca.n_components - 1]
    chosen = f"chosen: k = {pca.n_components} keeps {kept:.1%}"
    if pca.n_components <= n:
        total.axvline(pca.n_components, color="#334155", linewidth=1.2, label=chosen)
    else:
        total.plot([], [], color="#334155", label=f"{chosen} (beyond this plot)")
    total.set(ylabel="share of the variance, summed", ylim=(0, 1.02))
    for axes in (bars, total):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.spines[["top"]].set_visible(False)
    handles = [*bars.get_legend_handles_labels()[0], *total.get_legend_handles_labels()[0]]
    total.legend(handles=handles, loc="center right", frameon=True)
    bars.set_title(f"PCA of {pca.n_samples:,} photos' features", loc="left")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()

"""Pictures of what a drill measured, as SVG."""

import io
from collections.abc import Sequence

_BIN = 0.01  #: seconds
_AROUND = (1.0, 2.0)  #: seconds before and after the stop that are shown


def writes(moments: Sequence[float], stop: float) -> bytes:
    """Acknowledged writes per 10 ms around the moment when they stopped; `moments` in seconds, ascending."""
    import matplotlib  # half a second that nothing else of the lab has to wait for

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "aiprod-ops", "svg.fonttype": "none"}
    from matplotlib.figure import Figure

    before, after = _AROUND
    bins = [stop - before + _BIN * n for n in range(round((before + after) / _BIN) + 1)]
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(
        [at - stop for at in moments if bins[0] <= at < bins[-1]], [each - stop for each in bins], color="#3f51b5"
    )
    axes.set_xlim(-before, after)
    axes.set_xlabel("seconds since the last acknowledgement before the stop")
    axes.set_ylabel("writes per 10 ms")
    axes.spines[["top", "right"]].set_visible(False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()

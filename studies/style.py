"""One style for the figures of the studies: colours, dashes, axes, and how a figure is saved.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; dashes and marks are for
print. The same input gives the same file.
"""
from pathlib import Path

from engine.outputs import file_to_write

DASH = (0, (4, 1.5))
DOT = (0, (1, 1))
MIX = (0, (4, 1, 1, 1))
LONG = (0, (7, 1.5))
DENSE = (0, (2, 1))
# of the arms of the race
LOOKS = {
    "influence":    ("#D55E00", "-"),
    "fixed":        ("#000000", "-"),
    "spice":        ("#0072B2", DASH),
    "rzero":        ("#56B4E9", MIX),
    "azr":          ("#009E73", DOT),
    "learnability": ("#CC79A7", LONG),
    "random":       ("#E69F00", DENSE),
    "cosine":       ("#0072B2", DASH),
    "group_std":    ("#56B4E9", MIX),
    "batch_std":    ("#009E73", DOT),
    "none":         ("#CC79A7", LONG),
    "dev_only":     ("#E69F00", DENSE),
    "frozen":       ("#777777", DASH),
    "mixed":        ("#999933", DASH),
    "preconditioned_dot": ("#009E73", DOT),
    "dot":          ("#CC79A7", LONG),
}
BASE = ("#777777", DOT)
# of methods with other names, in their order
OTHERS = [("#D55E00", "-"), ("#0072B2", DASH), ("#009E73", DOT), ("#CC79A7", LONG),
          ("#E69F00", DENSE), ("#56B4E9", MIX)]
KNOWN = {"infuser": "influence", "base": "base"}
MARKS = "osD^vP"


def look(label, place):
    """A method's name and its place among the methods -> (colour, dash)."""
    known = KNOWN.get(label.lower(), label.lower())
    if known == "base":
        return BASE
    return LOOKS.get(known, OTHERS[place % len(OTHERS)])


def tidy(ax, title):
    ax.set_title(title, fontsize=9)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)


def refuse_unwritable(base):
    """InputError unless BASE.svg and BASE.png can be written."""
    for suffix in (".svg", ".png"):
        file_to_write("--out", base + suffix)


def save(plt, figure, base):
    """BASE.svg and BASE.png."""
    figure.patch.set_facecolor("white")
    Path(base).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{base}.svg", metadata={"Date": None})
    figure.savefig(f"{base}.png", dpi=150)
    plt.close(figure)

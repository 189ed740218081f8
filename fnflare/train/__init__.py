"""Training: a loop, what it shows, what it keeps, and how it ends.

`fit` does all of it; its parts serve in loops of your own just as well: `make_step`, `Progress`, the reporters,
`Checkpointer`, `EarlyStopping`, `History` and `plot_history`.
"""

from fnflare.train.checkpoints import Checkpointer
from fnflare.train.history import History, Series, plot_history
from fnflare.train.loop import FitResult, fit
from fnflare.train.progress import Progress
from fnflare.train.reporters import Accuracy, AverageLoss, Callback, Evaluate, Every, GradientSize
from fnflare.train.state import Moment, TrainState
from fnflare.train.steps import make_step
from fnflare.train.stopping import EarlyStopping

__all__ = [
    "Accuracy",
    "AverageLoss",
    "Callback",
    "Checkpointer",
    "EarlyStopping",
    "Evaluate",
    "Every",
    "FitResult",
    "GradientSize",
    "History",
    "Moment",
    "Progress",
    "Series",
    "TrainState",
    "fit",
    "make_step",
    "plot_history",
]

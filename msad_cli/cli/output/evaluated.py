"""What `msad eval --json` prints."""

from collections.abc import Mapping
from pathlib import Path

from msad_cli.cli.output.json_output import model_json, print_models, view_name
from msad_cli.evaluation.evaluate import Evaluation
from msad_cli.evaluation.metrics import Scores
from msad_cli.text import size_text


def print_evaluated(model: Path, evaluation: Evaluation, measured: Mapping[int, Mapping[str, Scores]]) -> None:
    """A document with each view at each size.

    Args:
        measured: by the short side of the input in pixels, the scores of each view.
    """
    models = []
    for side, scores in measured.items():
        for view, of in scores.items():
            name = view_name(model, view, scores)
            models.append(
                model_json(
                    f"{name}, {side}" if len(measured) > 1 else name,
                    model,
                    view,
                    size=size_text(evaluation.sizes[side]),
                    input_side=side,
                    images=len(evaluation.split),
                    scores=of.numbers,
                    per_class=of.per_class,
                    score_threshold=of.threshold,
                    f1=of.f1,
                )
            )
    print_models("eval", models, split=evaluation.config.split)

"""The main job from Python, on the built-in demo set: train a teacher, distil a student, evaluate it, find objects.

    python examples/from_python.py [FOLDER]      writes into FOLDER (default: from_python)

Keywords are the flags of `msad teacher`, `msad distill` and `msad eval`.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

import msad_cli as msad


def main(folder: Path, data: str = "demo", size: str = "256,256", epochs: int = 6) -> msad.Detections:
    """Writes teacher.safetensors and student.safetensors into a folder; returns what the student sees in a drawing."""
    teacher = msad.train_teacher(
        data=data,
        init="none",
        backbone="resnet18",
        width=0.5,
        head_channels=64,
        head_convs=2,
        size=size,
        batch=4,
        lr=0.02,
        epochs=epochs,
        out=folder / "teacher.safetensors",
        overwrite=True,
        quiet=False,
    )
    student = msad.distill(
        teacher=teacher.model,
        batch=4,
        lr=0.02,
        epochs=epochs,
        out=folder / "student.safetensors",
        overwrite=True,
        quiet=False,
    )
    for view, scores in msad.evaluate(student.model).items():
        print(f"the student's {view} view: AP {scores.numbers['AP']:.3f}, best F1 at score {scores.threshold:.2f}")

    image = Image.new("RGB", (320, 240), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((40, 60, 120, 140), fill="crimson")
    pen.rectangle((190, 90, 260, 160), fill="navy")
    found = msad.load(student.model).predict(image)  # or a path, a NumPy array, a tensor, a list of them
    for box, score, name in zip(found.boxes, found.scores, found.names, strict=True):
        print(f"{name} {score:.2f} at {box.round().tolist()}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "from_python"))

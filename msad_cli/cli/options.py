"""The flags that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE|demo",
        help="COCO, Roboflow, YOLO or Pascal VOC set, one JSON, or the built-in set. A model knows its own.",
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")]
PrecisionName = Annotated[str, typer.Option("--precision", metavar="auto|bf16|fp16|fp32", help="Of the forward pass.")]
Workers = Annotated[int | None, typer.Option(min=0, max=128, help="Loader processes. Default: from the CPU's cores.")]
Cache = Annotated[
    str, typer.Option("--cache", metavar="ram|off", help="ram keeps decoded training images between epochs.")
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="torch.compile backbone, pyramid and head: minutes at first, then faster steps."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.safetensors", help="The model file to write.")]
Seed = Annotated[int, typer.Option(help="Seed of initialisation, shuffling and augmentation.")]
Depthwise = Annotated[
    bool, typer.Option("--head-depthwise", help="Depthwise separable convolutions in the head, an eighth of its cost.")
]
HeadNorm = Annotated[
    str, typer.Option(metavar="auto|group|batch", help="Of FCOS's head, and depthwise RetinaNet's. Default: as --norm.")
]
InitPartial = Annotated[
    bool, typer.Option("--init-partial", help="Start from a file, too, that has less than nine tenths of the backbone.")
]
Epochs = Annotated[int | None, typer.Option(help="Default: by machine and set; of a student its teacher's.")]
BudgetTime = Annotated[
    str | None,
    typer.Option("--budget-time", metavar="2h", help="Choose epochs and size so that the run ends by then here."),
]
BatchSize = Annotated[int | None, typer.Option("--batch", help="Images a step. Default: by machine and detector.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Default: by optimizer, batch and start.")]
Optimizer = Annotated[
    str | None, typer.Option(metavar="sgd|adamw", help="What updates the weights. Default: sgd; adamw of rtmdet.")
]
Decay = Annotated[
    str | None,
    typer.Option(
        "--decay",
        metavar="steps|cosine|flat-cosine",
        help="÷10 at 2/3 and 8/9 of the run (default); a cosine to 0; or none until half of it, then a cosine to 1/20 "
        "(default of rtmdet).",
    ),
]
Warmup = Annotated[int | None, typer.Option("--warmup", help="Steps of learning-rate warm-up. Default: at most 500.")]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient.")]
Fliplr = Annotated[
    float | None,
    typer.Option(metavar="0.5", help="How likely an image is mirrored. Default: 0.5; 0 if classes say left and right."),
]
Augment = Annotated[
    str,
    typer.Option(
        metavar="off|light|strong",
        help="Of training images. light: mirror, scale jitter, rtmdet mosaic; strong: mirror, zoom, colours, mosaic.",
    ),
]
Flipud = Annotated[float | None, typer.Option(metavar="0.5", help="How likely top and bottom change places.")]
Turn = Annotated[float | None, typer.Option(metavar="0.5", help="How likely an image is turned by 90, 180 or 270°.")]
Zoom = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH", help="Scales the image in a frame that stays. Default: 0.1,2 of strong, else jitter."
    ),
]
Photo = Annotated[
    float | None, typer.Option(metavar="0.5", help="How likely colours are distorted. Default: 0.5 of strong.")
]
Mosaic = Annotated[
    float | None,
    typer.Option(
        metavar="0.5",
        help="How likely four images share a frame, but for the last epochs. Default: 0.5 of strong, 1 of rtmdet "
        "from 36 epochs on.",
    ),
]
Mixup = Annotated[
    float | None, typer.Option(metavar="0.5", help="How likely another image is blended in, but for the last epochs.")
]
Freeze = Annotated[
    str | None,
    typer.Option(metavar="backbone|N", help="What stays as it starts: N of its 5 stages from the image on, or all."),
]
ClassWeights = Annotated[
    str | None,
    typer.Option(metavar="auto|NAME=W,…", help="Of each class's classification loss; auto favours the rare ones."),
]
Ema = Annotated[float | None, typer.Option(help="Largest decay of averaged weights; 0 is off. Default: 0.999.")]
EvalEvery = Annotated[int | None, typer.Option(help="Epochs between evaluations. Default: 20 in a run.")]
Keep = Annotated[
    str,
    typer.Option("--keep", metavar="best|last", help="Which epoch becomes the model: the best by AP, or the last."),
]
Patience = Annotated[
    int | None,
    typer.Option(help="Evaluations without a better one that end the run; 0: never. Default: half, of over 30."),
]
TimedImages = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="FILE|DIR", help="Images to time. Default: the validation split of the model."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run of this file stopped.")]
Finish = Annotated[
    bool, typer.Option("--finish", help="With --resume: no more steps; evaluate what is there, and write the model.")
]
Time = Annotated[
    str | None,
    typer.Option("--time", metavar="2h", help="Stop then, after the step, ready to --resume: 90s, 45m, 1h30m."),
]
Checkpoint = Annotated[str, typer.Option("--checkpoint", metavar="5m", help="Time between two states to resume from.")]
Log = Annotated[
    str | None, typer.Option("--log", metavar="tensorboard|wandb|mlflow,…", help="Report every epoch there too.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and end.")]
Runtime = Annotated[
    str | None,
    typer.Option("--runtime", metavar="onnxruntime|openvino", help="What runs an .onnx file. Default: onnxruntime."),
]
NmsIou = Annotated[
    float | None,
    typer.Option("--nms-iou", min=0.0, max=1.0, help="Of two boxes that overlap more, the surer one is kept."),
]
MaxDetections = Annotated[
    int | None, typer.Option("--max-detections", min=1, max=1000, help="Of an image. Default: the model's, often 100.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
MaxPixels = Annotated[
    str,
    typer.Option("--max-pixels", metavar="N", help="Larger images are refused as decompression bombs; 500M is known."),
]
CrowdAsObjects = Annotated[
    bool, typer.Option("--crowd-as-objects", help="iscrowd marks single objects, as CVAT writes those of its brush.")
]
JoinClasses = Annotated[
    bool, typer.Option("--join-classes", help="Classes whose names differ only in case and blanks are one.")
]
Bits = Annotated[
    int | None,
    typer.Option("--bits", min=1, max=32, metavar="12", help="Of deep images (16-bit files), how many bits are used."),
]
Exif = Annotated[
    str | None,
    typer.Option(
        "--exif",
        metavar="auto|keep|ignore",
        help="Of images that EXIF turns: do labels fit them turned (keep) or not? Default: as sizes tell.",
    ),
]
TrainJson = Annotated[Path | None, typer.Option(metavar="FILE", help="Annotation file of the training split.")]
ValJson = Annotated[Path | None, typer.Option(metavar="FILE", help="Annotation file of the validation split.")]
TrainImages = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the training images.")]
ValImages = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the validation images.")]


TRAINING: dict[str, Any] = {
    "data": Data,
    "train_json": TrainJson,
    "val_json": ValJson,
    "train_images": TrainImages,
    "val_images": ValImages,
    "crowd_as_objects": CrowdAsObjects,
    "join_classes": JoinClasses,
    "max_pixels": MaxPixels,
    "bits": Bits,
    "exif": Exif,
    "cache": Cache,
    "epochs": Epochs,
    "budget_time": BudgetTime,
    "batch": BatchSize,
    "lr": LearningRate,
    "decay": Decay,
    "warmup": Warmup,
    "clip": Clip,
    "freeze": Freeze,
    "class_weights": ClassWeights,
    "optimizer": Optimizer,
    "ema": Ema,
    "eval_every": EvalEvery,
    "patience": Patience,
    "seed": Seed,
    "augment": Augment,
    "fliplr": Fliplr,
    "flipud": Flipud,
    "turn": Turn,
    "zoom": Zoom,
    "photo": Photo,
    "mosaic": Mosaic,
    "mixup": Mixup,
    "device": Device,
    "precision": PrecisionName,
    "workers": Workers,
    "compile_": Compile,
    "time": Time,
    "out": Out,
    "keep": Keep,
    "resume": Resume,
    "finish": Finish,
    "overwrite": Overwrite,
    "checkpoint": Checkpoint,
    "log": Log,
    "dry_run": DryRun,
    "quiet": Quiet,
}
"""The flags of both trainings, by the fields of `TrainingConfig`."""

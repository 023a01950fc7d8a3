"""How images of training are changed: what is asked for, what is usual, and the words for both."""

from collections.abc import Iterator

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.loading.augment import JITTER, LEVELS, Augmentation
from msad_cli.data.loading.mirroring import MIRRORED, mirror_pairs
from msad_cli.errors import UsageError
from msad_cli.models.detectors.kinds import recipe_of
from msad_cli.runs.folder import Setting
from msad_cli.text import listed, parse_zoom
from msad_cli.training.config import TrainingConfig
from msad_cli.training.defaults.inherited import PARTS

UNMIRRORED = "no image is mirrored: their names do not tell left from right; a category's flip_pairs would"


def choose_mirror(share: float | None, train: CocoSplit, usual: float = MIRRORED, flag: str = "--fliplr") -> Setting:
    """How likely an image of training is mirrored, by left and right or by top and bottom.

    Args:
        share: what was typed.
        usual: how likely where a mirror changes no meaning.

    Raises:
        UsageError: images shall be mirrored whose keypoints' names do not tell left from right.
    """
    if share is None and not usual:
        return Setting(0.0, "auto", "no image is mirrored")
    if not train.scheme.flips:
        if share:
            raise UsageError(
                f"mirrors of keypoints, {flag} {share:g}: {UNMIRRORED}", f"leave {flag} away", code="mirror-unknown"
            )
        return Setting(0.0, "auto" if share is None else "flag", UNMIRRORED)
    pairs = mirror_pairs([name for _, name in train.categories])
    if not pairs:
        chosen, source = (usual, "auto") if share is None else (share, "flag")
        return Setting(chosen, source, "how likely a training image is mirrored")
    warning = f"warning: a mirror makes {listed([f'{one} of {other}' for one, other in pairs])} and the other way round"
    if share is None:
        return Setting(0.0, "auto", f"{warning}, so no image is mirrored; {flag} {usual} does it all the same")
    return Setting(share, "flag", warning if share else "")


def choose_augmentation(
    config: TrainingConfig, train: CocoSplit, detector: str, epochs: int, jitter: bool = True, cached: bool = False
) -> tuple[Augmentation, dict[str, Setting]]:
    """How images of training are changed, and for the record the choices behind it.

    Args:
        detector, epochs: what is trained for how long: in long trainings some detectors have mosaics by default.
        jitter: whether light augmentation scales images: that of baselines of a single scale does not.
        cached: whether a teacher's pyramids are cached: of images at one scale, as they are and mirrored.

    Raises:
        UsageError: a mirror of what it would change, or what a teacher cache cannot hold.
    """
    level = LEVELS[config.augment]
    mirror = choose_mirror(config.fliplr, train, level.fliplr)
    settings = {"fliplr": mirror}
    typed = {name: value for name in PARTS if (value := getattr(config, name))}
    if cached and typed:
        flags = listed([f"--{name} {value}" for name, value in typed.items()])
        raise UsageError(
            f"--cache-teacher with {flags}: pyramids are kept of images at one scale, as they are and mirrored",
            "leave one or the other away",
            code="augmentation-not-cached",
        )
    if cached:
        settings["augment"] = _said_of_augmentation(config, "with --cache-teacher all but the mirror is off")
        return Augmentation(jitter=False, fliplr=mirror.value), settings
    if config.flipud is not None:
        settings["flipud"] = choose_mirror(config.flipud, train, flag="--flipud")
    first = recipe_of(detector).mosaic_from
    usual = config.augment == TrainingConfig.augment and first is not None and epochs >= first
    mosaic = (1.0 if usual else level.mosaic) if config.mosaic is None else config.mosaic
    if usual and config.mosaic is None:
        settings["mosaic"] = Setting(
            mosaic, "auto", f"four images in one, as usual of {detector} from {first} epochs on"
        )
    zoom = level.zoom if config.zoom is None else parse_zoom(config.zoom)
    chosen = Augmentation(
        jitter=level.jitter and jitter and zoom is None,
        fliplr=mirror.value,
        flipud=config.flipud or 0.0,
        turn=config.turn or 0.0,
        zoom=zoom,
        photo=level.photo if config.photo is None else config.photo,
        mosaic=mosaic,
        mixup=config.mixup or 0.0,
    )
    settings["augment"] = _said_of_augmentation(config, ", ".join(_parts(chosen)) or "images as they are")
    return chosen, settings


def _said_of_augmentation(config: TrainingConfig, words: str) -> Setting:
    return Setting(config.augment, "default" if config.augment == TrainingConfig.augment else "flag", words)


def _parts(of: Augmentation) -> Iterator[str]:
    """What an augmentation does, in words."""
    if of.jitter:
        yield f"scale jitter {min(JITTER):g} to {max(JITTER):g}"
    for share, words in ((of.fliplr, "mirrored"), (of.flipud, "top and bottom exchanged"), (of.turn, "turned")):
        if share:
            yield f"{share:g} {words}"
    if of.zoom is not None:
        yield f"scale {of.zoom[0]:g} to {of.zoom[1]:g} in a frame that stays"
    if of.photo:
        yield f"{of.photo:g} with other colours"
    if of.mosaic:
        yield f"{of.mosaic:g} mosaics, none in the last quarter of the epochs"
    if of.mixup:
        yield f"{of.mixup:g} with another image blended in, none in the last quarter of the epochs"

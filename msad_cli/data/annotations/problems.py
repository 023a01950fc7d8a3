"""What can be wrong with a data set: each kind of problem, what msad does about it, and what the user can do."""

from msad_cli.data.annotations.problem_tally import Problem


def _fatal(code: str, what: str, advice: str = "") -> Problem:
    return Problem(code, what, "refused", advice, fatal=True)


NO_IMAGES = _fatal("no-images", "no images")
MALFORMED = _fatal(
    "record-malformed", "malformed records", "correct them, or let msad data check FILE --fix -o NEW take them out"
)
BAD_ID = _fatal("id-not-whole", "ids that are no whole numbers", "msad data check FILE --fix -o NEW renumbers them")
REPEATED_ID = _fatal(
    "id-repeated", "ids that stand several times", "give every image and every category an id of its own"
)
UNLISTED_IMAGE = _fatal(
    "image-not-listed", "annotations of images that are not listed", "add the images, or take the annotations out"
)
UNKNOWN_CATEGORY = _fatal("category-unknown", "annotations of categories that are not known")
RENAMED_CATEGORY = _fatal(
    "category-renamed", "category ids that mean another class elsewhere", "give one id one name everywhere"
)
CLASSES_BY_NAME = Problem(
    "classes-by-name", "classes that have other ids than where they were learnt", "matched by name", "nothing to do"
)
BAD_NAME = _fatal(
    "file-name-refused",
    "file names that leave the folder of the images or are none",
    "name files relative to that folder",
)
OUTWARD_LINK = _fatal(
    "image-link-outward",
    "images that are links to outside the folder of the images",
    "where the links are your own: give the folder they lead to, replace them by hard links (cp -rlL FOLDER NEW), or "
    "make the whole folder one link",
)
NO_BOXES = _fatal(
    "no-boxes", "no boxes to learn from", "check the list 'annotations'; masks are only for Mask R-CNN, boxes for all"
)

NO_KEYPOINTS = _fatal(
    "no-keypoints",
    "no class with keypoints",
    "give a file whose category lists them, as COCO's person_keypoints_train2017.json: --train-json, --val-json",
)
SEVERAL_SCHEMES = _fatal(
    "keypoints-differ-by-class",
    "classes with other keypoints than the first one's",
    "a model finds one list of keypoints: give all classes the same, or make a file for each",
)
OTHER_KEYPOINTS = _fatal(
    "keypoints-not-those-learnt",
    "keypoints of other names than those learnt",
    "name them alike, in one order, in all files",
)

RESIZED = _fatal(
    "image-resized",
    "images that were resized after labelling: their boxes are of the stated size",
    "msad data check FILE --fix -o NEW scales boxes, outlines and keypoints to the files",
)

BOX_OFF_OUTLINE = Problem(
    "box-off-outline", "boxes that are not those of their outlines", "kept", "look at some: one of the two is wrong"
)
OUTLINE_OFF_BOX = Problem(
    "outline-off-box", "outlines that do not lie in their boxes", "kept", "look at some: one of the two is wrong"
)
AREA_ABOVE_BOX = Problem(
    "area-above-box", "annotations whose area is larger than their box", "kept", "look at some: one of the two is wrong"
)
BOX_FORM = Problem("box-in-another-form", "boxes in another form", "read as they stand", "look at some of them")
POINTS_OFF_BOX = Problem(
    "keypoints-outside-box", "objects whose keypoints lie outside of their box", "kept", "look at some of them"
)
RLE_SIZE = Problem(
    "rle-size-differs",
    "run lengths (RLE) whose size is not that of their image, and whose masks are not in their boxes",
    "kept",
    "their size is [height, width] of the image: write them anew",
)
TURNED_BOX = Problem(
    "box-turned",
    "boxes of rectangles that are turned (attributes.rotation, CVAT)",
    "read as the boxes that enclose them",
)
BOX_OF_OUTLINE = Problem("box-missing", "annotations without a box, but with an outline", "read as the outline's box")
SIDES_EXCHANGED = Problem(
    "rle-sides-exchanged", "run lengths (RLE) whose size is width, height", "read as height, width, as their boxes say"
)
RENUMBERED = Problem("id-renumbered", "ids that are texts or too large", "numbered anew")
NAME_OF_URL = Problem(
    "file-name-missing", "images without file_name, but with coco_url", "named by the last part of the address"
)
IGNORED = Problem("ignore-set", "annotations marked 'ignore'", "left out as crowd regions are: not learnt, not counted")
MANY_CROWDS = Problem(
    "crowds-many",
    "annotations that are crowd regions (iscrowd 1), more than usual",
    "left out: not learnt, not counted",
    "CVAT writes iscrowd 1 for single objects drawn with the brush: if these are such, --crowd-as-objects",
)
NAMES_ALIKE = Problem(
    "category-names-alike",
    "classes whose names differ only in case or blanks",
    "kept apart",
    "if they are one class, --join-classes reads them as one",
)
ONLY_IN_VAL = Problem(
    "class-only-in-val",
    "classes with objects in val and none in train, of a name that others have",
    "kept, never found",
    "if they are one class, --join-classes reads them as one",
)
LOOSE_ID = Problem("id-loosely-written", "ids written as text or with a decimal point", "read as whole numbers")
LARGE_ID = Problem(
    "id-too-large", "ids above 2^53", "kept", "tools that read numbers as doubles confuse them: use smaller ones"
)
UNNUMBERED = Problem("annotation-without-id", "annotations without an id of their own", "kept, numbered anew")
SHARED_NAME = Problem(
    "category-name-shared",
    "categories with the name of another one",
    "kept apart",
    "merge them if they are one class: --join-classes",
)
ROOT_CATEGORY = Problem(
    "category-root", "categories that only stand above all others, as Roboflow writes them", "left out"
)
SHARED_FILE = Problem(
    "image-file-shared", "images listed under several ids", "kept, each with its own boxes", "merge their annotations"
)
NO_SIZE = Problem("image-size-missing", "images without width and height", "read from the files")
NO_CROWD = Problem("iscrowd-missing", "annotations without iscrowd", "filled in with 0")
ODD_CROWD = Problem("iscrowd-odd", "annotations whose iscrowd is neither 0 nor 1", "read as one of them")
NO_AREA = Problem("area-missing", "annotations without area", "filled in with width × height")
ODD_AREA = Problem("area-odd", "annotations whose area is no number from 0 on", "replaced by width × height")
ODD_SEGMENTATION = Problem("segmentation-malformed", "annotations whose segmentation is malformed", "ignored")
NO_SEGMENTATION = Problem(
    "segmentation-missing", "annotations without a usable segmentation", "dropped, masks are to be learnt"
)
NO_POINTS = Problem(
    "keypoints-missing", "annotations without a usable list of keypoints", "dropped, keypoints are to be learnt"
)
KEYLESS = Problem("class-without-keypoints", "annotations of classes without keypoints", "left out")
ODD_SCHEME = Problem("keypoint-scheme-malformed", "skeletons and mirrored pairs that are malformed", "ignored")

NO_EXTENT = Problem("box-without-extent", "boxes without width or height", "dropped")
NOT_FINITE = Problem("box-not-finite", "boxes that are not finite", "dropped")
TOO_FAR = Problem("box-too-far", "boxes with coordinates beyond 1e9", "dropped")
OUTSIDE = Problem("box-outside-image", "boxes wholly outside their image", "dropped")
CUT = Problem("box-cut-by-image", "boxes that stick out of their image by more than a pixel", "clipped")
REPEATED_BOX = Problem("box-repeated", "boxes that repeat another one of the same class", "dropped")

ELSEWHERE = Problem(
    "image-elsewhere",
    "images that do not lie where file_name says, or are spelt otherwise there",
    "found by the last parts of their names",
)
SEVERAL_PLACES = Problem(
    "image-in-several-places",
    "images that may be files of several folders",
    "not guessed",
    "name the folder: --images, or --train-images and --val-images",
)
LOST_LABELS = _fatal(
    "label-files-missing",
    "images without a label file, like all others of the split",
    "put the label files there, or rename their folder",
)
BAD_LABELS = _fatal(
    "label-malformed", "objects in label files that cannot be read", "correct the lines, or what names the classes"
)
FEW_BAD_LABELS = Problem(
    "label-malformed-few",
    "objects in label files that cannot be read, under 1% of all",
    "left out",
    "correct the lines, or what names the classes",
)
SHARED_LABELS = Problem(
    "label-file-shared-by-images",
    "images that share a label file with another image",
    "kept, each with the same objects",
    "take out what is a copy or a mask of the other, or rename one",
)
UNUSED_LABELS = Problem(
    "label-file-without-image",
    "label files whose image is not there",
    "passed over",
    "add the images, or take the label files out",
)
OTHER_LABELS = Problem(
    "label-file-of-another-tool",
    "images without a label file, but with an .xml or .json of their name",
    "read as background",
    "if objects are in these files, store them as the other label files are",
)
OTHER_NAMES = Problem(
    "class-names-differ",
    "classes that a classes.txt of the set calls otherwise",
    "called as the set's own file says",
    "labels are numbered by the file beside them: put its names into the set's own file, if they were not renumbered",
)
UNREAD_IMAGES = Problem(
    "image-of-unknown-kind",
    "files with labels that are no image by their suffix",
    "not read",
    "store them as JPEG or PNG",
)

MISSING = Problem("image-missing", "images that are missing", "passed over", "add the files, or --fix takes them out")
UNREADABLE = Problem(
    "image-unreadable", "images that cannot be read", "passed over", "replace the files, or --fix takes them out"
)
OTHER_SIZE = Problem(
    "image-size-differs", "images of another size than the annotation file says", "the file's size is taken"
)
TURNED = Problem(
    "image-turned-by-exif",
    "images that EXIF turns, while the annotation file has the unturned size",
    "turned, their labels are not, by --exif keep",
    "without --exif keep their labels are turned too",
)
LABELS_TURNED = Problem(
    "exif-labels-turned",
    "images that EXIF turns, whose labels were made on the unturned files",
    "the labels are turned with them",
    "--exif keep leaves labels as they are",
)
LABELS_UNTOLD = Problem(
    "exif-labels-untold",
    "images that EXIF turns, where nothing tells whether their labels were made on the turned ones",
    "labels are taken for those of the turned images",
    "look at them: --exif ignore turns labels that were made on the unturned files, --exif keep says that all fit",
)
LEVELS = Problem(
    "image-levels-unused",
    "images of more than 8 bits that use few of their levels",
    "read by one range for all",
    "where the files' own number of bits is known, --bits 12 (or another) types it",
)
DIM = Problem(
    "image-nearly-black",
    "images of more than 8 bits that are nearly black at the depth of the others",
    "kept, nearly black",
    "store all images of a set at one depth; --bits N says by which number of bits all are read",
)
PAGES = Problem(
    "image-of-several-pages",
    "images of several pages or frames, of which the first is read",
    "the others are passed over",
    "where the objects are on another one, store that as a file of its own",
)
BANDS = Problem(
    "image-bands-unread",
    "images with bands beyond the colours that are no alpha",
    "these bands are passed over",
    "store the three bands (channels) that matter as RGB",
)
SMALL = Problem(
    "object-small", "objects under 8 pixels in the downsampled view", "kept", "a larger --size, or a smaller --k"
)

SEEN_TWICE = Problem(
    "image-in-both-splits", "images of val that are in train too", "kept", "take them out of one: AP will look too good"
)
VAL_EMPTY = Problem("val-without-boxes", "no boxes to measure by", "kept, AP will be unknown")

KINDS = tuple(each for each in list(vars().values()) if isinstance(each, Problem))
"""All of them."""
READ_OTHERWISE = {
    kind.code
    for kind in (
        RESIZED,
        BOX_OFF_OUTLINE,
        OUTLINE_OFF_BOX,
        AREA_ABOVE_BOX,
        BOX_FORM,
        POINTS_OFF_BOX,
        RLE_SIZE,
        TURNED_BOX,
        BOX_OF_OUTLINE,
        SIDES_EXCHANGED,
        RENUMBERED,
        NAME_OF_URL,
        IGNORED,
        MANY_CROWDS,
    )
}
"""Codes of what contradicts itself, or is read otherwise than it stands: whoever reads the file says it."""
OF_READING = {
    kind.code
    for kind in (
        ELSEWHERE,
        FEW_BAD_LABELS,
        SHARED_LABELS,
        UNUSED_LABELS,
        OTHER_LABELS,
        OTHER_NAMES,
        UNREAD_IMAGES,
        CLASSES_BY_NAME,
        LABELS_TURNED,
        LABELS_UNTOLD,
    )
}
"""Codes of what concerns which objects are read at all: whoever reads a set says it."""

BEYOND_REPAIR = {
    kind.code
    for kind in (
        BOX_OFF_OUTLINE,
        OUTLINE_OFF_BOX,
        AREA_ABOVE_BOX,
        BOX_FORM,
        POINTS_OFF_BOX,
        RLE_SIZE,
        MANY_CROWDS,
        IGNORED,
        NAMES_ALIKE,
        ONLY_IN_VAL,
        SHARED_NAME,
        ROOT_CATEGORY,
        CLASSES_BY_NAME,
        ELSEWHERE,
        SEVERAL_PLACES,
        LOST_LABELS,
        SHARED_LABELS,
        UNUSED_LABELS,
        OTHER_LABELS,
        OTHER_NAMES,
        UNREAD_IMAGES,
        SHARED_FILE,
        TURNED,
        LABELS_TURNED,
        LABELS_UNTOLD,
        LEVELS,
        DIM,
        PAGES,
        BANDS,
        SMALL,
        SEEN_TWICE,
        VAL_EMPTY,
        NO_SEGMENTATION,
        NO_POINTS,
        KEYLESS,
        ODD_SCHEME,
    )
}
"""Codes of what `--fix` leaves as it is, because it takes a decision or more than one task knows."""

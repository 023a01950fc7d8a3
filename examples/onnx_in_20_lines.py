"""An exported model without msad and torch: python onnx_in_20_lines.py student.onnx image.jpg"""

import json
import sys

import numpy
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
with open(sys.argv[1] + ".json", encoding="utf-8") as file:  # what `msad export` wrote beside it
    notes = json.load(file)
image, rule = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB"), notes["preprocessing"]
short, long = sorted(image.size)
ratio, step = min(rule["hr_short_side"] / short, rule["hr_long_side"] / long), rule["hr_multiple"]
size = [max(step, step * round(side * ratio / step)) // rule["k"] for side in image.size]
moved = rule.get("shift", 0) * numpy.divide(image.size, size)  # of low views; in pixels of the image, x and y
(left, top), start = numpy.ceil(moved).astype(int), numpy.ceil(moved) - moved
whole = Image.fromarray(numpy.pad(image, ((top, 0), (left, 0), (0, 0)), mode="edge"))
resized = whole.resize(size, Image.Resampling.BILINEAR, box=(*start, *(start + image.size)))
pixels = numpy.asarray(resized).transpose(2, 0, 1)[None]
boxes, scores, labels = (each[0] for each in session.run(["boxes", "scores", "labels"], {"images": pixels}))
names = {each["label"]: each["name"] for each in notes["classes"]}
boxes = boxes * numpy.divide(image.size * 2, size * 2)  # from pixels of the input to those of the image
for box, score, label in zip(boxes, scores, labels, strict=True):
    if score >= notes["postprocessing"]["score_threshold"]:
        print(names[label], f"{score:.3f}", *(f"{each:.1f}" for each in box))

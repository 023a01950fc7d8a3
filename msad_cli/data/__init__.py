"""Reading COCO-style sets, finding them, and turning pictures into batches."""

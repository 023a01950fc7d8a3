"""Whether an annotation agrees with itself: box with outline, keypoints, area and image."""

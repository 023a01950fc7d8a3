"""One small file a distance between the knowledge of a teacher and of a student."""

"""What several distillation losses share."""

"""What a training does that nobody typed: by machine, by data, by the time it may take."""

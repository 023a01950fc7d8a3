"""What only the training of a student has: its plan, its assistant, the cached teacher."""

"""Which model is the strongest that fits a budget on this machine, before anything is trained."""

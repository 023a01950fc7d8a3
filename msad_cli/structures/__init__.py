"""Plain frozen values that every floor may use; nothing here imports torch."""

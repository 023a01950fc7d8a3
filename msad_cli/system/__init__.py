"""The machine: device, memory, files, processes."""

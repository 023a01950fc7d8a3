"""One file a command: parse, assemble, call, print."""

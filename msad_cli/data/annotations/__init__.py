"""What annotation files say: records, checks, repair."""

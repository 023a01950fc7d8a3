"""What several test files draw and build."""

"""Results as people and programs read them: tables that fit the screen, JSON of one schema."""

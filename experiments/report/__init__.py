"""Results files to tables and figures. Nothing is computed again."""

"""What fits networks and ridge regressions."""

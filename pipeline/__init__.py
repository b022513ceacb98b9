"""What should happen: grid, cells, task graph, scheduler."""

"""Where it happens: Ray, actors, and one plain function per task kind."""

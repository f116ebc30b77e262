"""Scripts without any supervision: the least that the same work costs."""

"""What a process tells operators of itself: metrics, and traces of units. Nothing here changes what is computed."""

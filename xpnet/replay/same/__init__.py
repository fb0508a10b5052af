"""What makes a recording be used again: what it took in, and whether that is the same at another call."""

"""Task sources: generated worlds and real question sets."""

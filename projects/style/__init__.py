"""Style transfer: a photograph in, the same scene painted like another image out."""

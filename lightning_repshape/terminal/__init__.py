"""What a person sees in a terminal: progress of long work, and how figures and notes are printed."""

"""Data modules of the image sets of the papers, and folders of images."""

"""What people do with such systems, measured: augmentation, inpainting, membership, privacy.

`python -m fastgen_course.applications.records` records it all; notebooks/APPLICATIONS.md tells it.
"""

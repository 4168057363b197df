"""The serving page: type a caption, get four pictures, change them in words.

`python -m fastgen_course serve` draws in ONNX Runtime behind a small web server; with `--static` it
writes the same page as files, and the model draws in the reader's own browser.
"""

"""The pretrained language model: descriptions edited by words, free wording read into captions."""

"""The embedded world: pictures and clips of one drawn shape whose facts are known, with the language that speaks of them.

scenes (facts and splits) -> render (pixels) and language (words) -> truth (grading) -> dataset (records) -> pretrain (base models).
"""

"""Taggers: ONNX models that look at pictures and write captions.

Knows onnxruntime (optional), numpy and PIL, the library's pictures and files, and the tags of `characters`; no torch of
its own and never ComfyUI. `options` is what a person chooses, `tagger` opens a model, `run` goes through a folder; they
are imported one by one, since only the first is needed before a run.
"""

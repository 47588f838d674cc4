"""``verger export``: a classifier for apps as one ONNX file, and the check against the pipeline."""

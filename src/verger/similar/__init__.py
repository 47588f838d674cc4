"""Photos that are alike: nearest photos, copies, doubtful labels, outliers."""

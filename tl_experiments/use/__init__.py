"""What a finished run is for: predictions, scores on other images, exports."""

"""Jobs, and later the schedules and sensors that start them."""

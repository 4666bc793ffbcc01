"""Makes it so: compares what git says with what Ray Serve and Hypha run, and closes the gap."""

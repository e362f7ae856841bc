"""Where does a model come from, and is it whole? The sample, the test engine, a hub, a folder."""

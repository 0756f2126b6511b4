"""What combines the methods: two encoders compared, an encoder audited, shortcut cues and metadata."""

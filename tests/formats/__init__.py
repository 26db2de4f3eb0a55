"""Other tools' prompt files: what is read, what is written, and that neither changes what a prompt says."""

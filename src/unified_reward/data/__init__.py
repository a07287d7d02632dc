"""From files as the field publishes them to judge records: media decoding, frame sampling, importers."""

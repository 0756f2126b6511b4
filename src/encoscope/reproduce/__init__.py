"""The papers' tables and figures, each a command: `encoscope reproduce NAME`."""

"""Repeat a recorded run: from its recording alone, on a desktop, or from a step on."""

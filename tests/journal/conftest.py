"""Properties are judged by what they say, never by how long the machine took."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a fresh checkout the table of all letters is built inside the first draw, which takes longer than hypothesis likes.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

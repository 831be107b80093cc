"""The same examples on every run and machine, however slow: a failure is there again when a test is run again."""

from hypothesis import settings

settings.register_profile("same-everywhere", deadline=None, derandomize=True)
if settings.get_current_profile_name() == "default":
    settings.load_profile("same-everywhere")

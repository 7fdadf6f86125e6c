"Made-up people with their truth: `from spice.people import People`."
from .people import * # noqa: F403
from .people import __all__ # noqa: F401

"""promptab: versioned prompts and models, sticky experiments, honest comparison, promotion and rollback.

The public names are listed in `__init__.pyi` and loaded at their first use: so `promptab --help` and a program
that needs a part of promptab do not wait for the rest.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
